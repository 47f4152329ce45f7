use super::*;
use crate::nn::RopeScaling;
use serde_json::{Value, json};

fn llama() -> Value {
    json!({"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "hidden_size": 4096, "intermediate_size": 11008, "rms_norm_eps": 1e-5,
        "architectures": ["LlamaForCausalLM"]})
}

fn gpt2() -> Value {
    json!({"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768,
        "n_inner": null, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "n_ctx": 1024})
}

fn with(mut file: Value, changes: Value) -> Value {
    file.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    file
}

fn read(file: Value) -> Result<ModelConfig> {
    ModelConfig::from_hugging_face(&file.to_string())
}

fn bert() -> Value {
    json!({"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512, "num_hidden_layers": 12,
        "num_attention_heads": 12, "hidden_size": 768, "intermediate_size": 3072, "architectures": ["BertForMaskedLM"]})
}

fn names(count: usize) -> Option<Vec<String>> {
    Some(["no", "maybe", "yes"][..count].iter().map(|name| name.to_string()).collect())
}

#[test]
fn encoders_are_read() {
    let config = read(bert()).unwrap();
    assert_eq!((config.arch, config.norm_epsilon, config.segments, config.padding), (Arch::Bert, 1e-12, 2, Some(0)));
    assert_eq!((config.activation, config.context, config.labels), (Activation::Gelu, 512, None));
    let roberta = json!({"model_type": "roberta", "max_position_embeddings": 514, "layer_norm_eps": 1e-5,
        "type_vocab_size": 1, "hidden_act": "gelu_new"});
    let config = read(with(bert(), roberta.clone())).unwrap();
    assert_eq!((config.context, config.first_position(), config.segments), (512, 2, 1));
    assert_eq!((config.activation, config.norm_epsilon), (Activation::GeluTanh, 1e-5));
    let far = read(with(with(bert(), roberta), json!({"pad_token_id": 9}))).unwrap();
    assert_eq!((far.context, far.first_position()), (504, 10));
}

#[test]
fn classes_are_read_by_their_numbers() {
    let class = json!({"architectures": ["BertForSequenceClassification"]});
    let of = |more: Value| read(with(with(bert(), class.clone()), more));
    assert_eq!(of(json!({"id2label": {"1": "maybe", "0": "no", "2": "yes"}})).unwrap().labels, names(3));
    let unnamed = |count: usize| Some((0..count).map(|i| format!("LABEL_{i}")).collect::<Vec<_>>());
    assert_eq!(of(json!({})).unwrap().labels, unnamed(2));
    assert_eq!(of(json!({"num_labels": 5})).unwrap().labels, unnamed(5));
    assert_eq!(read(with(bert(), json!({"id2label": {"0": "no", "1": "yes"}}))).unwrap().labels, None);
    for (more, word) in [
        (json!({"id2label": {"0": "no", "2": "yes"}}), "no name for 1"),
        (json!({"num_labels": 1}), "1 labels"),
        (json!({"num_labels": 1_u64 << 40}), "labels"),
        (json!({"problem_type": "regression"}), "problem_type regression"),
    ] {
        let error = of(more).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn both_families_are_read() {
    let config = read(llama()).unwrap();
    assert_eq!((config.hidden, config.kv_heads, config.tied, config.norm_epsilon), (11008, 32, false, 1e-5));
    let config = read(gpt2()).unwrap();
    assert_eq!((config.arch, config.hidden, config.tied, config.context), (Arch::Gpt2, 3072, true, 1024));
}

#[test]
fn every_class_has_its_own_shape_and_defaults() {
    let of = |kind: &str, more: Value| read(with(with(llama(), json!({"model_type": kind})), more)).unwrap();
    let mistral = of("mistral", json!({"sliding_window": null, "attention_bias": true}));
    assert_eq!((mistral.kv_heads, mistral.attention_bias), (8, AttentionBias::None));
    let qwen2 = of("qwen2", json!({"num_key_value_heads": 4, "sliding_window": 16, "use_sliding_window": false}));
    assert_eq!((qwen2.kv_heads, qwen2.attention_bias, qwen2.qk_norm), (4, AttentionBias::Qkv, false));
    let qwen3 = of("qwen3", json!({"hidden_size": 2048}));
    assert_eq!((qwen3.head_size(), qwen3.attention_bias, qwen3.qk_norm), (128, AttentionBias::None, true));
    let biased = of("llama", json!({"attention_bias": true, "mlp_bias": true, "head_dim": 64}));
    assert_eq!((biased.head_size(), biased.attention_bias, biased.mlp_bias), (64, AttentionBias::All, true));
    assert_eq!(of("llama", json!({"rms_norm_eps": null})).norm_epsilon, 1e-6);
}

#[test]
fn rotary_positions_are_read_in_both_versions() {
    let three = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048});
    let expected = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, context: 2048.0 };
    let old = read(with(llama(), json!({"rope_theta": 5e5, "rope_scaling": three}))).unwrap();
    assert_eq!((old.rope_theta, old.rope_scaling), (5e5, expected));
    let new = read(with(llama(), json!({"rope_parameters": with(three, json!({"rope_theta": 5e5}))}))).unwrap();
    assert_eq!(new, old);
    let both = json!({"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}, "rope_parameters": {}});
    assert_eq!(read(with(llama(), both)).unwrap().rope_scaling, RopeScaling::Linear { factor: 2.0 });
    let empty = json!({"rope_scaling": {}, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}});
    assert_eq!(read(with(llama(), empty)).unwrap().rope_theta, 7.0);
}

#[test]
fn what_would_change_numbers_is_refused_by_name() {
    let refused = |file: Value, changes: Value, word: &str| {
        let error =
            read(with(file, changes.clone())).map_or_else(|e| e.to_string(), |c| panic!("{changes} gave {c:?}"));
        assert!(error.contains(word), "{changes}: {error}");
    };
    for (changes, word) in [
        (json!({"model_type": "mamba"}), "model_type mamba"),
        (json!({"hidden_act": "gelu"}), "activation gelu"),
        (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "rope_type dynamic"),
        (json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}), "rope_type yarn"),
        (json!({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}), "low_freq_factor"),
        (json!({"rope_scaling": {"rope_type": "linear"}}), "factor"),
        (json!({"rope_scaling": {"rope_type": "linear", "factor": -1.0}}), "factor is -1"),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), "by layer type"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"quantization_config": {"bits": 4}}), "quantization_config"),
        (json!({"intermediate_size": null}), "intermediate_size"),
        (json!({"vocab_size": null}), "invalid type: null"),
        (json!({"model_type": "mistral"}), "sliding_window 4096 is smaller than the context 8192"),
        (json!({"model_type": "mistral", "sliding_window": 100}), "at most 100"),
        (json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 64}), "sliding_window 64"),
        (json!({"model_type": "qwen3", "layer_types": ["sliding_attention"]}), "sliding_window 4096"),
        (json!({"model_type": "qwen3", "layer_types": ["chunked_attention"]}), "layer_types chunked_attention"),
        (json!({"head_dim": 5}), "even head size"),
        (json!({"hidden_size": 1_u64 << 40}), "width is 1099511627776"),
        (json!({"num_hidden_layers": 1_u64 << 30}), "layers is 1073741824"),
        (json!({"vocab_size": 1 << 24, "hidden_size": 1 << 23, "intermediate_size": 1 << 24}), "parameters"),
        (json!({"num_attention_heads": 0}), "heads is 0"),
        (json!({"rms_norm_eps": -1.0}), "norm_epsilon -1"),
        (json!({"rope_theta": 0.0}), "rope_theta 0"),
    ] {
        refused(llama(), changes, word);
    }
    for (changes, word) in [
        (json!({"activation_function": "gelu"}), "activation gelu"),
        (json!({"scale_attn_weights": false}), "scale_attn_weights"),
        (json!({"scale_attn_by_inverse_layer_idx": true}), "scale_attn_by_inverse_layer_idx"),
        (json!({"add_cross_attention": true}), "add_cross_attention"),
        (json!({"tie_word_embeddings": false}), "tied is false"),
    ] {
        refused(gpt2(), changes, word);
    }
    for (changes, word) in [
        (json!({"hidden_act": "silu"}), "activation silu: only gelu, gelu_new, gelu_pytorch_tanh, relu"),
        (json!({"position_embedding_type": "relative_key"}), "position_embedding_type"),
        (json!({"is_decoder": true}), "is_decoder"),
        (json!({"tie_word_embeddings": false}), "tied is false"),
        (json!({"type_vocab_size": 0}), "segments is 0"),
        (json!({"model_type": "roberta", "pad_token_id": 4_000_000_000_u32}), "context is 0"),
    ] {
        refused(bert(), changes, word);
    }
    let same = json!({"scale_attn_weights": true, "scale_attn_by_inverse_layer_idx": false,
        "add_cross_attention": false, "reorder_and_upcast_attn": true, "activation_function": "gelu_pytorch_tanh"});
    assert_eq!(read(with(gpt2(), same)).unwrap(), read(gpt2()).unwrap());
}

#[test]
fn a_shorter_context_fits_into_a_window() {
    let text = with(llama(), json!({"model_type": "mistral"})).to_string();
    let within = |context| ModelConfig::from_hugging_face_within(&text, Some(context));
    let config = within(512).unwrap();
    assert_eq!((config.context, config.positions()), (512, 4096), "positions beyond the window are not claimed");
    assert_eq!(within(4096).unwrap().positions, None);
    assert!(within(8193).unwrap_err().to_string().contains("more than the model's 8192 positions"));
    assert!(within(0).unwrap_err().to_string().contains("context is 0"));
    let full =
        json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 64, "max_window_layers": 32});
    assert_eq!(read(with(llama(), full)).unwrap().context, 8192, "no layer slides");
}

#[test]
fn what_is_written_is_read_again() {
    let usual = ModelConfig { kv_heads: 2, ..ModelConfig::new(Arch::Llama, 50, 64, 2, 4, 16) };
    let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, context: 32.0 };
    let configs = [
        ("gpt2", ModelConfig { hidden: 24, ..ModelConfig::new(Arch::Gpt2, 50, 64, 2, 4, 16) }),
        ("llama", ModelConfig { tied: false, rope_scaling: RopeScaling::Linear { factor: 2.0 }, ..usual.clone() }),
        ("llama", ModelConfig { attention_bias: AttentionBias::All, mlp_bias: true, rope_theta: 5.0, ..usual.clone() }),
        ("mistral", ModelConfig { head_dim: Some(6), width: 18, ..usual.clone() }),
        ("qwen2", ModelConfig { attention_bias: AttentionBias::Qkv, rope_scaling: llama3, ..usual.clone() }),
        (
            "qwen3",
            ModelConfig { qk_norm: true, head_dim: Some(8), attention_bias: AttentionBias::All, ..usual.clone() },
        ),
        ("llama", ModelConfig { labels: names(3), padding: Some(2), tied: false, ..usual }),
        ("bert", ModelConfig { activation: Activation::Relu, ..ModelConfig::new(Arch::Bert, 50, 64, 2, 4, 16) }),
        ("roberta", ModelConfig { labels: names(2), ..ModelConfig::new(Arch::Roberta, 50, 64, 2, 4, 16) }),
    ];
    for (name, config) in configs {
        let file = config.to_hugging_face();
        assert_eq!(file["model_type"], name);
        assert_eq!(read(file.clone()).unwrap(), config, "{file}");
        let shorter = ModelConfig::from_hugging_face_within(&file.to_string(), Some(8)).unwrap();
        assert_eq!(shorter.to_hugging_face(), file, "the weights' positions are written, not the context");
    }
}
