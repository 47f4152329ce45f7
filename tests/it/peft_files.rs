//! Adapters' files that are wrong, by design or by damage.

use crate::allocations::peak;
use crate::peft::{adapter, base, folder};
use eckart::io::peft::{Adapter, open};
use eckart::nn::Model;
use eckart::{DType, Device, Module, Tensor};
use std::path::Path;

/// A fixture's files.
fn files(name: &str) -> [Vec<u8>; 2] {
    ["adapter_config.json", "adapter_model.safetensors"].map(|file| std::fs::read(folder(name).join(file)).unwrap())
}

fn write(folder: &Path, [config, tensors]: [&[u8]; 2]) {
    std::fs::write(folder.join("adapter_config.json"), config).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), tensors).unwrap();
}

/// A fixture opened with this change of its configuration.
fn changed(name: &str, from: &str, to: &str) -> eckart::Result<Adapter> {
    let scratch = tempfile::tempdir().unwrap();
    let [config, tensors] = files(name);
    let text = String::from_utf8(config).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    write(scratch.path(), [text.replacen(from, to, 1).as_bytes(), &tensors]);
    open(scratch.path())
}

#[test]
fn what_would_change_numbers_is_refused_by_name() {
    let off = ["layer_replication", "megatron_config", "target_parameters", "trainable_token_indices"];
    let off = off.into_iter().chain([
        "alora_invocation_tokens",
        "use_bdlora",
        "arrow_config",
        "kasa_config",
        "monteclora_config",
    ]);
    for key in off {
        for value in ["[[0, 1]]", "{\"a\": [1]}", "true", "7", "\"x\""] {
            let error = changed("gpt2_lora", &format!("\"{key}\": null"), &format!("\"{key}\": {value}")).unwrap_err();
            assert!(error.to_string().ends_with(&format!("{key} is set, and not supported")), "{error}");
        }
        for value in ["[]", "{}", "false", "\"\""] {
            changed("gpt2_lora", &format!("\"{key}\": null"), &format!("\"{key}\": {value}")).unwrap();
        }
    }
    for (from, to, problem) in [
        ("\"use_qalora\": false", "\"use_qalora\": true", "use_qalora is set, and not supported"),
        ("\"lora_bias\": false", "\"lora_bias\": true", "lora_bias is set, and not supported"),
        ("\"bias\": \"none\"", "\"bias\": \"lora_only\"", "bias \"lora_only\": biases trained"),
        ("\"peft_type\": \"LORA\"", "\"peft_type\": \"LOHA\"", "peft_type \"LOHA\": only LORA is known"),
        (
            "\"init_lora_weights\": true",
            "\"init_lora_weights\": \"olora\"",
            "save it with path_initial_model_for_weight_conversion",
        ),
        (
            "\"init_lora_weights\": true",
            "\"init_lora_weights\": \"pissa_niter_4\"",
            "the base it was trained beside is not known",
        ),
        ("\"r\": 2", "\"r\": 0", "ranks are at least 1"),
        ("\"rank_pattern\": {}", "\"rank_pattern\": {\"c_attn\": 0}", "ranks are at least 1"),
        ("\"r\": 2", "\"r\": -2", "invalid value"),
        ("\"lora_dropout\": 0.0", "\"lora_dropout\": 1.0", "lora_dropout 1 is not in [0, 1)"),
        ("\"lora_alpha\": 3", "\"lora_alpha\": 1e400", "number out of range"),
        ("\"layers_to_transform\": null", "\"layers_to_transform\": 1", "layers_to_transform 1 is fine"),
        ("\"r\": 2", "\"r\": 2, \"r\": 3", "duplicate field `r`"),
    ] {
        let found = changed("gpt2_lora", from, to);
        if problem.ends_with("is fine") {
            assert_eq!(found.unwrap().config.blocks, [1]);
        } else {
            let error = found.unwrap_err().to_string();
            assert!(error.contains("adapter_config.json: ") && error.contains(problem), "{error}");
        }
    }
    // Expressions go with no numbers of blocks.
    let error = changed("gpt2_exclude", "\"layers_to_transform\": null", "\"layers_to_transform\": [1]").unwrap_err();
    assert!(error.to_string().contains("go with a list of target_modules alone"), "{error}");
    // What nobody knows yet, and what leaves numbers alone, is ignored.
    changed("gpt2_lora", "\"r\": 2", "\"r\": 2, \"of_next_year\": {\"deep\": [1, 2]}").unwrap();
    changed("gpt2_lora", "\"init_lora_weights\": true", "\"init_lora_weights\": \"Gaussian\"").unwrap();
}

pub fn contents(model: &Model) -> Vec<(String, bool, Vec<f32>)> {
    model.parameters().into_iter().map(|(path, p)| (path, p.trains(), p.tensor().detach().to_vec().unwrap())).collect()
}

/// All that is wrong is said at once, and the model stays as it was.
fn refused(adapter: &Adapter, mut model: Model) -> String {
    let before = contents(&model);
    let error = adapter.put_on(&mut model).unwrap_err().to_string();
    assert_eq!(contents(&model), before, "{error}");
    assert!(!error.contains('\n'));
    error
}

#[test]
fn every_fault_is_named_with_both_shapes() {
    let model = || base("gpt2", DType::F32);
    let mut bad = adapter("gpt2_saved");
    let cpu = Device::cpu();
    let key = |name: &str| format!("transformer.{name}");
    bad.tensors.remove(&key("h.0.attn.c_attn.lora_B.weight"));
    bad.tensors.insert(key("h.1.attn.c_attn.lora_A.weight"), Tensor::zeros([2, 11], DType::F32, &cpu).contiguous());
    bad.tensors.insert(key("h.7.attn.c_attn.lora_A.weight"), Tensor::zeros([1, 12], DType::F32, &cpu).contiguous());
    bad.tensors.insert(key("ln_f.bias"), Tensor::new(&[1.0, f64::NAN, 2.0], [3], &cpu));
    bad.tensors.insert(key("h.1.attn.c_attn.lora_B.weight"), Tensor::zeros([36, 1], DType::U32, &cpu).contiguous());
    let error = refused(&bad, model());
    for fault in [
        "tests/fixtures/peft/gpt2_saved: ",
        "transformer.h.0.attn.c_attn.lora_B.weight is missing: [36, 1]",
        "transformer.h.1.attn.c_attn.lora_A.weight is [2, 11], the model takes [1, 12]",
        "transformer.h.7.attn.c_attn.lora_A.weight [1, 12] is not asked for by the configuration",
        "the model has no layers transformer.h.7.attn.c_attn; it has ",
        "transformer.ln_f.bias is [3], the model takes [12]",
        "transformer.ln_f.bias [3] is not finite at element 1",
        "transformer.h.1.attn.c_attn.lora_B.weight has whole numbers, u32",
    ] {
        assert!(error.contains(fault), "{fault:?} is not in {error}");
    }
    assert_eq!(bad.check(Some(&model())).len(), 7, "{error}");
    // Without a model, what the adapter itself cannot be.
    let alone = bad.check(None).join("; ");
    assert!(alone.contains("h.0.attn.c_attn.lora_B.weight is missing"), "{alone}");
    assert!(alone.contains("h.1.attn.c_attn.lora_A.weight is [2, 11], the configuration says rank 1"), "{alone}");
    assert!(bad.show().is_err() && adapter("gpt2_saved").check(None).is_empty());
    // The other family has none of it.
    let error = refused(&adapter("gpt2_lora"), base("llama", DType::F32));
    assert!(
        error.contains("target_modules c_attn, mlp.c_proj: no layer is meant; there are model.embed_tokens, "),
        "{error}"
    );
    // Ranks of the configuration and of the tensors.
    let mut bad = adapter("gpt2_lora");
    bad.config.ranks = vec![("h.1.attn.c_attn".into(), 3)];
    assert!(refused(&bad, model()).contains("c_attn.lora_A.weight is [2, 12], the model takes [3, 12]"));
    bad.config.ranks = vec![("(".into(), 3)];
    assert!(refused(&bad, model()).contains("regular expression \"(\""));
    // An adapter on an adapter.
    let mut twice = base("gpt2", DType::F32);
    adapter("gpt2_lora").put_on(&mut twice).unwrap();
    assert!(refused(&adapter("gpt2_pissa"), twice).contains("it has an adapter already"));
}

/// What the head has of its own cannot be, where it is the embedding's transpose.
#[test]
fn heads_that_are_tied_have_nothing_of_their_own() {
    let untie = "untie the model's head first";
    let error = refused(&adapter("untied_embedding"), base("llama", DType::F32));
    assert!(error.contains("lm_head has an adapter of its own here") && error.contains(untie), "{error}");
    let error = refused(&adapter("untied_saved"), base("llama", DType::F32));
    assert!(error.contains("lm_head has weights of its own here") && error.contains(untie), "{error}");
    let mut saved = adapter("gpt2_lora");
    saved.config.whole = vec!["wte".into()];
    saved
        .tensors
        .insert("transformer.wte.weight".into(), Tensor::zeros([17, 12], DType::F32, &Device::cpu()).contiguous());
    assert!(refused(&saved, base("gpt2", DType::F32)).contains("lm_head has weights of its own here"));
    // Untied, it can be.
    let mut model = base("llama", DType::F32);
    model.untie().unwrap();
    adapter("untied_saved").put_on(&mut model).unwrap();
    assert!(base("gpt2", DType::F32).untie().unwrap_err().to_string().contains("always"));
}

#[test]
fn folders_that_hold_no_adapter_say_why() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path();
    let error = || open(path).unwrap_err().to_string();
    assert!(error().contains("adapter_config.json: "));
    let [config, tensors] = files("gpt2_lora");
    std::fs::write(path.join("adapter_config.json"), &config).unwrap();
    assert!(error().contains("adapter_model.safetensors: "));
    std::fs::write(path.join("adapter_model.bin"), b"").unwrap();
    assert!(error().contains("save it again with safe_serialization=True"), "{}", error());
    std::fs::create_dir(path.join("adapter_model.safetensors")).unwrap();
    assert!(error().contains("is no file"));
    std::fs::remove_dir(path.join("adapter_model.safetensors")).unwrap();
    write(path, [&config, &tensors[..tensors.len() - 1]]);
    assert!(error().contains("not a safetensors file"), "{}", error());
    write(path, [&vec![b' '; (1 << 20) + 1], &tensors]);
    assert!(error().contains("at most 1048576 are read"));
}

/// Sizes that a file claims are compared with its length before anything is made for them.
#[test]
fn files_that_claim_much_cost_little() {
    let scratch = tempfile::tempdir().unwrap();
    let [config, _] = files("gpt2_lora");
    let claims = [
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#,
        r#"{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#,
    ];
    let mut tries: Vec<Vec<u8>> =
        claims.iter().map(|header| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).collect();
    tries.extend([u64::MAX, 1 << 40, 100_000_000, 8].map(|length| length.to_le_bytes().to_vec()));
    for tensors in tries {
        write(scratch.path(), [&config, &tensors]);
        let (_, bytes) = peak(|| open(scratch.path()).map(|adapter| adapter.check(None)));
        assert!(bytes < 1 << 18, "{bytes} bytes for {:?}", String::from_utf8_lossy(&tensors));
    }
}
