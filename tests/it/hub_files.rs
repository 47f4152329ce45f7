//! Folders in Hugging Face's layout: what is written is read again to the bit, and what does not fit is refused by name.

use crate::allocations::peak;
use crate::hub::{folder, names};
use eckart::io::{Files, hub};
use eckart::lowrank::{ALL_LINEAR, AdapterConfig, Keep, adapt, bake, merge};
use eckart::module::Path as ModulePath;
use eckart::nn::{Model, Pass};
use eckart::{DType, Device, LinearMap, Module, Seed, Tensor};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn open(folder: &Path) -> eckart::Result<Model> {
    hub::open(folder, None, &Device::cpu())
}

fn refused(folder: &Path) -> String {
    open(folder).map_or_else(|error| error.to_string(), |_| panic!("{} was opened", folder.display()))
}

/// A copy of a fixture to be spoilt.
fn copy(name: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder(name)).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), home.path().join(file.file_name())).unwrap();
    }
    home
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn bits(model: &Model) -> Vec<(String, Vec<u32>)> {
    let words = |x: &Tensor| x.to_vec::<f32>().unwrap().iter().map(|x| x.to_bits()).collect();
    model.parameters().iter().map(|(path, parameter)| (path.clone(), words(parameter.tensor()))).collect()
}

/// Where the saved folders go: `ECKART_HUB_OUT`, for `tests/fixtures/check_hub.py` to read, else away.
fn out(scratch: &Path) -> std::path::PathBuf {
    std::env::var_os("ECKART_HUB_OUT").map_or_else(|| scratch.into(), Into::into)
}

#[test]
fn what_is_saved_is_opened_to_the_bit() {
    let scratch = tempfile::tempdir().unwrap();
    for name in names() {
        let model = open(&folder(name)).unwrap();
        let saved = out(scratch.path()).join(name);
        let tokenizer = Files::from([("tokenizer.json".to_string(), b"{}".to_vec())]);
        hub::save(&model, &saved, &tokenizer).unwrap();
        let again = open(&saved).unwrap();
        assert_eq!(again.config(), model.config(), "{name}");
        assert_eq!(bits(&again), bits(&model), "{name}");
        let mut files: Vec<_> = fs::read_dir(&saved).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["config.json", "model.safetensors", "tokenizer.json"]);
        let ids: Vec<u32> = (0..12).map(|i| i * 5 % 17).collect();
        let logits = again.logits(&Tensor::new(&ids, [1, 12], &Device::cpu()), &Pass::default());
        let logits = [("logits".to_string(), logits.array())];
        fs::write(out(scratch.path()).join(format!("{name}.logits")), eckart::io::encode(logits).unwrap()).unwrap();
    }
}

/// Names, shapes and metadata are those that transformers itself wrote.
#[test]
fn what_is_saved_has_the_names_of_the_original() {
    let scratch = tempfile::tempdir().unwrap();
    for name in names().filter(|name| !["gpt2-plain", "llama-sharded"].contains(name)) {
        let saved = scratch.path().join(name);
        hub::save(&open(&folder(name)).unwrap().cast(DType::F64), &saved, &Files::new()).unwrap();
        let table = |folder: &Path| {
            let bytes = fs::read(folder.join("model.safetensors")).unwrap();
            let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let mut table: Vec<_> = file.tensors().into_iter().map(|(name, x)| (name, x.shape().to_vec())).collect();
            table.sort();
            (table, metadata.metadata().clone())
        };
        assert_eq!(table(&saved), table(&folder(name)), "{name}");
    }
}

#[test]
fn adapters_are_merged_before_a_model_is_saved() {
    let home = tempfile::tempdir().unwrap();
    let mut model = open(&folder("qwen2")).unwrap();
    let before = bits(&model);
    let config = AdapterConfig { rank: 2, targets: vec![ALL_LINEAR.into()], ..AdapterConfig::default() };
    adapt(&mut model, &config, Seed(1)).unwrap();
    let saved = home.path().join("merged");
    let error = hub::save(&model, &saved, &Files::new()).unwrap_err().to_string();
    assert!(error.starts_with("model.layers.0.self_attn.q_proj is no plain matrix"), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing was written");
    merge(&mut model, Keep::Nothing, true).unwrap();
    assert!(hub::save(&model, &saved, &Files::new()).is_err());
    bake(&mut model);
    hub::save(&model, &saved, &Files::new()).unwrap();
    assert_eq!(bits(&open(&saved).unwrap()), before, "fresh adapters add nothing");
}

#[test]
fn a_folder_is_written_only_where_none_is() {
    let home = tempfile::tempdir().unwrap();
    let mut model = open(&folder("gpt2")).unwrap();
    let error = hub::save(&model, home.path(), &Files::new()).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    for name in ["../x", "model.safetensors", "a/b"] {
        let beside = Files::from([(name.to_string(), Vec::new())]);
        let error = hub::save(&model, &home.path().join("new"), &beside).unwrap_err().to_string();
        assert!(error.contains("cannot be a further file"), "{error}");
    }
    let nowhere = hub::open(&folder("gpt2"), None, &Device::null()).unwrap();
    assert!(hub::save(&nowhere, &home.path().join("new"), &Files::new()).unwrap_err().to_string().contains("null"));
    model.visit_maps(&ModulePath::root(), &mut |path, map: &mut LinearMap| {
        if path.to_string() == "h.1.attn.c_proj" {
            *map = LinearMap::transposed(Tensor::zeros([8, 8], DType::F32, &Device::cpu()));
        }
    });
    let error = hub::save(&model, &home.path().join("new"), &Files::new()).unwrap_err().to_string();
    assert!(error.contains("h.1.attn.c_proj"), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn all_that_does_not_fit_is_listed_at_once() {
    let home = copy("llama");
    change(&home.path().join("config.json"), |config| {
        config["vocab_size"] = 20.into();
        config["num_hidden_layers"] = 1.into();
        config["model_type"] = "qwen3".into();
    });
    let error = refused(home.path());
    for part in [
        "model.embed_tokens.weight is [17, 8], the model has [20, 8]",
        "lm_head.weight is [17, 8], the model has [20, 8]",
        "model.layers.0.self_attn.q_norm.weight is missing, the model has [8]",
        "model.layers.1.mlp.up_proj.weight [12, 8] is not known",
        "model.layers.0.mlp.up_proj.bias [12] is not known",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let mistyped = copy("gpt2-plain");
    let path = mistyped.path().join("model.safetensors");
    let text = fs::read(&path).unwrap();
    let (name, other) = (&b"\"F16\",\"shape\":[8,24]"[..], &b"\"I16\",\"shape\":[8,24]"[..]);
    let at = text.windows(name.len()).position(|part| part == name).expect("a half-precision weight");
    fs::write(&path, [&text[..at], other, &text[at + name.len()..]].concat()).unwrap();
    let error = refused(mistyped.path());
    assert!(error.contains("attn.c_attn.weight is of type I16: f32, f16, bf16 and f64 are read"), "{error}");
}

#[test]
fn both_names_of_one_weight_are_one_too_many() {
    let home = copy("gpt2");
    let path = home.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut views = file.tensors();
    views.push(("ln_f.bias".into(), file.tensor("transformer.ln_f.bias").unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    assert!(refused(home.path()).contains("ln_f.bias is there twice"));
}

/// What a folder holds, to be written there again.
fn rewritten(home: &Path, change: impl Fn(&str) -> Option<String>, more: &[(&str, &[usize])]) {
    let path = home.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut views: Vec<_> = file.tensors().into_iter().filter_map(|(name, x)| Some((change(&name)?, x))).collect();
    let zeros = vec![0; 4096];
    for (name, shape) in more {
        let bytes = 4 * shape.iter().product::<usize>();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &zeros[..bytes]);
        views.push((name.to_string(), view.unwrap()));
    }
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// As the first files of BERT were published: old names, buffers, copies of what is tied, heads of other tasks.
#[test]
fn older_files_with_other_heads_are_opened() {
    let [new, old, bare] = ["bert-classes"; 3].map(copy);
    let gamma =
        |name: &str| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let more: [(&str, &[usize]); 4] = [
        ("bert.embeddings.position_ids", &[1, 16]),
        ("cls.predictions.bias", &[17]),
        ("cls.predictions.decoder.weight", &[17, 8]),
        ("cls.seq_relationship.bias", &[2]),
    ];
    rewritten(old.path(), |name| Some(gamma(name)), &more);
    rewritten(bare.path(), |name| Some(name.trim_start_matches("bert.").into()), &[]);
    let expected = bits(&open(new.path()).unwrap());
    assert_eq!(bits(&open(old.path()).unwrap()), expected);
    assert_eq!(bits(&open(bare.path()).unwrap()), expected);
    let llama = copy("llama-classes");
    rewritten(llama.path(), |name| Some(name.trim_start_matches("model.").into()), &[("lm_head.weight", &[17, 8])]);
    assert_eq!(bits(&open(llama.path()).unwrap()), bits(&open(&folder("llama-classes")).unwrap()));
}

/// Files of a masked language model, opened to classify.
#[test]
fn a_head_that_files_lack_is_fresh_where_that_is_asked_for() {
    let labels = Some(vec!["no".to_string(), "yes".into()]);
    for (name, fresh) in [
        ("bert", &["pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"][..]),
        (
            "roberta",
            &[
                "classifier.dense.weight",
                "classifier.dense.bias",
                "classifier.out_proj.weight",
                "classifier.out_proj.bias",
            ],
        ),
        ("gpt2", &["score.weight"]),
        ("llama", &["score.weight"]),
    ] {
        let plain = hub::read_config(&folder(name), 12).unwrap();
        let config = eckart::nn::ModelConfig { labels: labels.clone(), ..plain };
        let error = hub::load(&folder(name), &config, &Device::cpu()).map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("{} is missing, the model has", fresh[0])), "{error}");
        assert_eq!(hub::lacking(&folder(name), &config).unwrap(), fresh);
        let open = |seed| hub::load_with_head(&folder(name), &config, Seed(seed), &Device::cpu()).unwrap();
        let [(one, found), (same, _), (other, _)] = [1, 1, 2].map(open);
        assert_eq!(found, fresh);
        assert_eq!(bits(&one), bits(&same));
        let differ: Vec<String> =
            bits(&one).into_iter().zip(bits(&other)).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0).collect();
        let weights: Vec<&str> = fresh.iter().copied().filter(|path| path.ends_with("weight")).collect();
        assert_eq!(differ, weights, "{name}: what is fresh, biases apart, is a function of the seed");
    }
    // A part of a head is a damaged file, and so is a model without its body.
    let home = copy("bert-classes");
    rewritten(home.path(), |name| (name != "classifier.bias").then(|| name.into()), &[]);
    let config = hub::read_config(home.path(), 12).unwrap();
    let refused = |home: &Path| hub::lacking(home, &config).unwrap_err().to_string();
    assert!(refused(home.path()).contains("classifier.bias is missing, the model has [3]"));
    rewritten(home.path(), |name| name.starts_with("bert.pooler").then(|| name.into()), &[]);
    assert!(refused(home.path()).contains("embeddings.word_embeddings.weight is missing"));
}

#[test]
fn an_index_leads_to_files_of_its_folder_alone() {
    let index = "model.safetensors.index.json";
    for name in ["../x.safetensors", "/etc/hostname", "sub/x", "", "..", "."] {
        let home = copy("llama-sharded");
        change(&home.path().join(index), |index| index["weight_map"]["model.norm.weight"] = name.into());
        let error = refused(home.path());
        assert!(error.contains(&format!("names {name:?}, which is not a file of this folder")), "{error}");
    }
    let home = copy("llama-sharded");
    fs::remove_file(home.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(refused(home.path()).contains("names what is not there: model-00002-of-00002.safetensors"));
    fs::write(home.path().join(index), "{}").unwrap();
    assert!(refused(home.path()).contains("not an index"));
    fs::write(home.path().join(index), r#"{"weight_map": {}}"#).unwrap();
    assert!(refused(home.path()).contains("names no file"));
    fs::remove_file(home.path().join(index)).unwrap();
    assert!(refused(home.path()).contains("has neither model.safetensors nor model.safetensors.index.json"));
    fs::remove_file(home.path().join("config.json")).unwrap();
    assert!(refused(home.path()).contains("config.json"));
}

#[test]
fn damaged_and_hostile_files_are_errors() {
    let home = copy("qwen3");
    let (weights, config) = (home.path().join("model.safetensors"), home.path().join("config.json"));
    let good = fs::read(&weights).unwrap();
    let huge = [&u64::MAX.to_le_bytes()[..], &good[8..]].concat();
    for bad in [&good[..0], &good[..7], &good[..good.len() - 1], &huge, b"not a file at all"] {
        fs::write(&weights, bad).unwrap();
        assert!(refused(home.path()).contains("not a safetensors file"));
    }
    fs::write(&weights, &good).unwrap();
    fs::copy(&config, home.path().join("sound.json")).unwrap();
    fs::write(&config, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(refused(home.path()).contains("config.json: has 1048577 bytes; at most 1048576 are read"));
    fs::rename(home.path().join("sound.json"), &config).unwrap();
    for claim in [
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#,
    ] {
        fs::write(&weights, [&(claim.len() as u64).to_le_bytes()[..], claim.as_bytes()].concat()).unwrap();
        let (_, bytes) = peak(|| assert!(refused(home.path()).contains("not a safetensors file")));
        assert!(bytes < 1 << 18, "{bytes} bytes for {claim}");
    }
    fs::write(&weights, &good).unwrap();
    // A context that no weight confirms.
    change(&config, |config| config["max_position_embeddings"] = (1 << 24).into());
    assert!(refused(home.path()).contains("ask for a smaller context"));
    assert_eq!(hub::open(home.path(), Some(8), &Device::cpu()).unwrap().config().context, 8);
    let widest = json!({"hidden_size": 1 << 24, "num_hidden_layers": 1 << 12, "intermediate_size": 2});
    change(&config, |config| config.as_object_mut().unwrap().extend(widest.as_object().unwrap().clone()));
    assert!(hub::open(home.path(), Some(8), &Device::cpu()).is_err());
    fs::remove_file(&weights).unwrap();
    fs::create_dir(&weights).unwrap();
    change(&config, |config| *config = json!({"model_type": "gpt2"}));
    assert!(refused(home.path()).contains("missing field"));
    fs::copy(folder("qwen3").join("config.json"), &config).unwrap();
    assert!(refused(home.path()).contains("model.safetensors: is not a file"));
}
