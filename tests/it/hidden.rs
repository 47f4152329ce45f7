//! Masked language modelling: from a text, from a published tokenizer, and on from there.

use crate::tiny;
use eckart::data::{Specials, Tokenizer, Vocabulary};
use eckart::io::hub;
use eckart::lowrank::{Keep, bake, merge};
use eckart::nn::Arch;
use eckart::train::{Adapter, Config, Figures, Method, Questions, evaluate, subject};
use eckart::{Device, Seed};
use std::path::Path;

fn config(folder: &Path, arch: Arch, out: &str) -> Config {
    Config { arch, context: 24, optimizer: Some(Method::Adamw), ..tiny::config(folder, &format!("{arch:?} {out}")) }
}

/// A published tokenizer, as far as this library can tell: one token for each of the text's characters.
fn tokenizer(folder: &Path) -> std::path::PathBuf {
    let vocabulary = Vocabulary::of(tiny::text(600).as_bytes());
    let path = folder.join("published.json");
    std::fs::write(&path, vocabulary.to_hugging_face(Some(&Specials::BERT)).to_string()).unwrap();
    path
}

#[test]
fn encoders_learn_a_text_by_hidden_tokens() {
    let folder = tempfile::tempdir().unwrap();
    // Letters in long runs: one of eight, ln 8 = 2.08 nats, unless what stands around it says which.
    let run = |i: u64| {
        let [letter, length, ..] = Seed(4).block(i);
        ["a", "t", "h", "e", "r", "n", "k", " "][letter as usize % 8].repeat(60 + length as usize % 80)
    };
    let text = folder.path().join("runs.txt");
    std::fs::write(&text, (0..150).map(run).collect::<String>()).unwrap();
    for arch in [Arch::Bert, Arch::Roberta] {
        let usual = Config { data: Some(text.clone()), ..config(folder.path(), arch, "learns") };
        let learning = Config { steps: 200, batch: 16, dropout: 0.0, lr: Some(1e-2), eval_every: 100, ..usual };
        let trained = tiny::train(&learning, false).unwrap();
        tiny::assert_as_planned(&trained.report, &format!("{arch:?}"));
        assert!(trained.report.val_loss.unwrap() < 1.0, "{arch:?}: {:?}", trained.report.val_loss);
        let model = trained.export().unwrap();
        let tokenizer = Tokenizer::open(&model).unwrap();
        let [around, named] = match arch {
            Arch::Bert => [[2, 3], [4, 0]],
            _ => [[0, 2], [4, 1]],
        };
        let framed = tokenizer.framed("the rank", None, 24).unwrap().ids;
        assert_eq!((framed.len(), framed[0], framed[9]), (10, around[0], around[1]));
        assert_eq!([tokenizer.mask(), tokenizer.pad()], named.map(Some));
        // In the order of their characters, behind five special tokens.
        assert_eq!(framed[1..9], [12, 8, 7, 5, 11, 6, 10, 9]);
        assert_eq!(tokenizer.decode(&framed[1..9]), "the rank");
        let opened = hub::open(&model, None, &Device::cpu()).unwrap();
        assert_eq!((opened.config().arch, opened.config().vocabulary), (arch, tokenizer.size()));
        assert_eq!(opened.config().context, 24);
    }
}

#[test]
fn a_run_is_a_function_of_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str| Config { accumulate: 2, ..config(folder.path(), Arch::Bert, out) };
    let (whole, pieces) = (run("whole"), run("pieces"));
    tiny::train(&whole, false).unwrap();
    tiny::same_in_pieces(&whole, &pieces, 3);
    // What is hidden of what is held back changes with the seed alone.
    let held = |config: Config| {
        let subject = subject(&config).unwrap();
        let ids: Vec<u32> = subject.source.validation(&config).flat_map(|batch| batch.ids).collect();
        ids
    };
    let usual = config(folder.path(), Arch::Bert, "").resolved().unwrap();
    assert_eq!(held(usual.clone()), held(Config { batch: 7, accumulate: 5, steps: 99, ..usual.clone() }));
    assert_ne!(held(usual.clone()), held(Config { seed: 2, ..usual }));
}

/// Of 22 ordinary tokens in a window of 24, three are hidden unless more are asked for; plans know.
#[test]
fn how_many_are_hidden_is_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    for (share, each) in [(0.15, 3), (0.5, 11), (1.0, 22)] {
        let config = Config {
            mlm_probability: share,
            steps: 2,
            eval_every: 2,
            ..config(folder.path(), Arch::Bert, &format!("{share}"))
        };
        let resolved = config.clone().resolved().unwrap();
        let batch = subject(&resolved).unwrap().source.batch(&resolved, 0, 0);
        assert_eq!(batch.counted(), each * batch.rows());
        tiny::assert_as_planned(&tiny::train(&config, false).unwrap().report, &format!("{share} hidden"));
    }
}

/// A published tokenizer goes into the model's folder, and fine-tuning goes on from there, on texts of many lengths.
#[test]
fn fine_tuning_goes_on_with_the_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let published = tokenizer(folder.path());
    let texts = folder.path().join("texts.jsonl");
    let text = tiny::text(600);
    let row = |i: usize| serde_json::json!({"text": text[7 * i..][..3 + i % 31]}).to_string() + "\n";
    std::fs::write(&texts, (0..90).map(row).collect::<String>()).unwrap();
    for (arch, adapter) in [(Arch::Bert, Adapter::Lora), (Arch::Roberta, Adapter::None), (Arch::Llama, Adapter::Lora)] {
        let first = Config { tokenizer: Some(published.clone()), ..config(folder.path(), arch, "first") };
        let model = tiny::train(&first, false).unwrap().export().unwrap();
        assert_eq!(std::fs::read(model.join("tokenizer.json")).unwrap(), std::fs::read(&published).unwrap());
        let out = folder.path().join(format!("{arch:?} second"));
        let second = Config {
            model: Some(model.clone()),
            data: Some(texts.clone()),
            out: Some(out),
            adapter,
            mlm_probability: if arch.is_encoder() { 0.4 } else { 0.15 },
            steps: 30,
            context: 24,
            rank: 4,
            lr: Some(5e-3),
            eval_every: 10,
            ..Config::fine_tuning()
        };
        let trained = tiny::train(&second, false).unwrap();
        tiny::assert_as_planned(&trained.report, &format!("{arch:?}"));
        let best = trained.history.iter().filter_map(|line| line.val_loss).fold(f64::INFINITY, f64::min);
        let left = trained.export().unwrap();
        let opened = match adapter {
            Adapter::None => hub::open(&left, None, &Device::cpu()).unwrap(),
            _ => {
                let mut opened = hub::open(&model, None, &Device::cpu()).unwrap();
                eckart::io::peft::open(&left).unwrap().put_on(&mut opened).unwrap();
                merge(&mut opened, Keep::Nothing, true).unwrap();
                bake(&mut opened);
                opened
            }
        };
        // The run's own validation part, as a file; texts are numbered from its beginning.
        let held = folder.path().join("held.jsonl");
        std::fs::write(&held, (81..90).map(row).collect::<String>()).unwrap();
        let tokenizer = Tokenizer::open(&model).unwrap();
        let read = |mlm_probability, seed| {
            let questions = Questions { mask_prompt: false, columns: None, batch: 4, mlm_probability, seed };
            questions.read(&held, &tokenizer, opened.config())
        };
        let asked = |seed| {
            let exam = read(arch.is_encoder().then_some(0.4), seed).unwrap();
            evaluate(&opened, exam.batches.into_iter()).unwrap().unwrap()
        };
        let found = asked(second.seed);
        assert!((found.loss - best).abs() < 1e-5, "{arch:?}: {found:?}, reported {best}");
        assert!(matches!(found.figures, Figures::Tokens { .. }));
        assert_eq!(asked(7).loss == found.loss, arch == Arch::Llama, "what is hidden is a function of the seed");
        let refused = if arch.is_encoder() { "mlm_probability: 1.5 is not above 0" } else { "no tokens are hidden" };
        assert!(read(Some(1.5), 1).err().unwrap().to_string().contains(refused));
    }
}

#[test]
fn what_cannot_work_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let usual = config(folder.path(), Arch::Bert, "refused");
    let fails = |config: Config, words: &str| {
        let found = tiny::train(&config, false).map(drop).unwrap_err().to_string();
        assert!(found.contains(words), "{found}");
    };
    fails(Config { context: 2, ..usual.clone() }, "leaves no room for a text");
    let bare = folder.path().join("bare.json");
    let vocabulary = Vocabulary::of(tiny::text(600).as_bytes());
    std::fs::write(&bare, vocabulary.to_hugging_face(None).to_string()).unwrap();
    fails(Config { tokenizer: Some(bare), ..usual.clone() }, "has no mask token");
    fails(Config { tokenizer: Some(folder.path().join("text.txt")), ..usual.clone() }, "has no lines [CLS] and [SEP]");
    fails(Config { tokenizer: Some("/no/such/folder".into()), ..usual.clone() }, "/no/such/folder");
    // A classifier's files lack the head of a language model.
    let model = tiny::train(&usual, false).unwrap().export().unwrap();
    let data = folder.path().join("table.tsv");
    std::fs::write(&data, "text\tlabel\na\tno\nmatrix\tyes\nrank\tno\n").unwrap();
    let classes = Config {
        model: Some(model),
        data: Some(data),
        out: Some(folder.path().join("classes")),
        task: eckart::train::Task::Classify,
        adapter: Adapter::None,
        steps: 1,
        ..Config::fine_tuning()
    };
    let classifier = tiny::train(&classes, false).unwrap().export().unwrap();
    let text = Some(tiny::text_file(folder.path()));
    let back = Config { model: Some(classifier), data: text, task: eckart::train::Task::Lm, ..classes };
    let back = Config { out: Some(folder.path().join("back")), ..back };
    let lacks = "lacks cls.predictions.transform.dense.weight";
    fails(Config { adapter: Adapter::Lora, ..back.clone() }, lacks);
    let found = subject(&back.resolved().unwrap()).unwrap().notes;
    assert!(
        found.last().unwrap().starts_with("new in this model: cls.predictions.transform.dense.weight"),
        "{found:?}"
    );
    tiny::train(&back, false).unwrap();
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_learns_what_the_host_learns() {
    if crate::gpu::device().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |device: &str| Config { device: device.into(), ..config(folder.path(), Arch::Bert, device) };
    let here = tiny::train(&run("cpu"), false).unwrap();
    let there = tiny::train(&run(&crate::gpu::name()), false).unwrap();
    assert_eq!(there.report.planned_peak_bytes, there.report.peak_bytes, "planned and measured");
    for (a, b) in here.history.iter().zip(&there.history) {
        let apart =
            [(a.loss, b.loss), (a.val_loss, b.val_loss)].map(|(a, b)| (a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs());
        assert!(apart.iter().all(|apart| *apart < 1e-4), "{a:?} and {b:?}");
    }
}

/// BERT's published pieces of words.
#[test]
fn a_published_vocabulary_is_learnt_with() {
    let Some(bert) = crate::shared::file("tokenizers/bert-uncased") else { return };
    let folder = tempfile::tempdir().unwrap();
    for path in [bert.clone(), bert.join("vocab.txt"), bert.join("tokenizer.json")] {
        let usual = config(folder.path(), Arch::Bert, &format!("{}", path.is_file()));
        let out = folder.path().join(path.file_name().unwrap());
        let run = Config { tokenizer: Some(path), out: Some(out), steps: 2, ..usual };
        let subject = subject(&run.resolved().unwrap()).unwrap();
        let batch = subject.source.batch(&run, 0, 0);
        assert!(batch.ids.chunks(24).all(|row| (row[0], row[23]) == (101, 102)), "[CLS] and [SEP]");
        assert!(batch.ids.contains(&103), "[MASK]");
        let model = tiny::train(&run, false).unwrap().export().unwrap();
        let found = Tokenizer::open(&model).unwrap();
        assert_eq!((found.size(), found.mask(), found.pad()), (30522, Some(103), Some(0)));
        assert_eq!(hub::read_config(&model, 24).unwrap().vocabulary, 30522);
    }
}
