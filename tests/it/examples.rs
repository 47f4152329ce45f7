//! Data sets as files.

use crate::published::{folder, read, tokenizer, tokens};
use crate::shared;
use eckart::data::{Batches, Columns, Dataset, Example, Examples, Form, LabelledSet, Layout, Reading, Tokenizer};
use std::path::Path;

const BOS: u32 = 1;
const EOS: u32 = 2;

fn reading(max_length: usize) -> Reading {
    Reading { max_length, mask_prompt: false }
}

fn masked(max_length: usize) -> Reading {
    Reading { max_length, mask_prompt: true }
}

fn examples(name: &str, text: &str, reading: Reading) -> Result<Examples, String> {
    let template = "{% for m in messages %}[{{ m.role[0] }}]{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\
                    {{ '\n' }}{% endfor %}{% if add_generation_prompt %}[a]{% endif %}";
    let folder = folder(&[(name, text)]);
    Examples::read(&folder.path().join(name), &tokenizer(Some(template)), reading).map_err(|error| error.to_string())
}

fn whole(text: &str) -> Vec<u32> {
    [&[BOS], &*tokens(text), &[EOS]].concat()
}

#[test]
fn texts_stand_between_bos_and_eos() {
    let read = examples("a.jsonl", "{\"text\": \"ab\", \"source\": [1, {}]}\n\n{\"text\": \"c</s>\"}\r\n", reading(9))
        .unwrap();
    assert_eq!(read.examples, [Example::whole(whole("ab")), Example::whole(whole("c"))]);
    assert_eq!((read.form, read.truncated, read.left_out), (Form::Text, 0, 0));
}

#[test]
fn prompts_are_masked() {
    let text = "{\"prompt\": \"Q: é\", \"completion\": \"A\"}";
    let read = |reading| examples("a.jsonl", text, reading).unwrap().examples;
    assert_eq!(read(reading(32)), [Example::whole(whole("Q: éA"))]);
    let example = &read(masked(32))[0];
    assert_eq!((&example.ids, example.learnt_from, example.counted()), (&whole("Q: éA"), 6, 2));
}

#[test]
fn of_a_conversation_the_last_answer_is_learnt() {
    let text = r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
                                {"role": "user", "content": "z"}, {"role": "assistant", "content": "ok"},
                                {"role": "user", "content": "never answered"}]}"#;
    let text = text.replace('\n', " ");
    let up_to_answer = [tokens("[u]x\n[a]y"), vec![EOS], tokens("\n[u]z\n[a]")].concat();
    let answer = [tokens("ok"), vec![EOS], tokens("\n")].concat();
    let read = examples("a.jsonl", &text, masked(99)).unwrap();
    let expected = Example { ids: [&*up_to_answer, &answer].concat(), learnt_from: up_to_answer.len() };
    assert_eq!((read.examples, read.form), (vec![expected], Form::Chat));
    let read = examples("a.jsonl", &text, reading(99)).unwrap();
    let rest = [tokens("[u]never answered\n"), vec![EOS]].concat();
    assert_eq!(read.examples, [Example::whole([up_to_answer, answer, rest].concat())]);
    let silent = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n";
    assert!(examples("a.jsonl", silent, masked(99)).unwrap_err().contains("nothing to learn: 1 examples"));
    assert_eq!(examples("a.jsonl", &(silent.to_owned() + &text), masked(99)).unwrap().left_out, 1);
}

#[test]
fn a_prompt_ends_where_its_tokens_do() {
    let Some(path) = shared::file("tokenizers/gpt2") else { return };
    let tokenizer = Tokenizer::open(&path).unwrap();
    let folder = folder(&[("a.jsonl", "{\"prompt\": \"The ans\", \"completion\": \"wer is\"}")]);
    let read = Examples::read(&folder.path().join("a.jsonl"), &tokenizer, masked(32)).unwrap();
    // " answer" is one token, so that only "The" is the prompt's alone.
    assert_eq!(read.examples, [Example { ids: tokenizer.encode("The answer is").unwrap(), learnt_from: 1 }]);
}

#[test]
fn what_is_long_is_cut_and_counted() {
    let text = "{\"prompt\": \"abcdef\", \"completion\": \"g\"}\n{\"prompt\": \"a\", \"completion\": \"bcdefg\"}\n";
    let read = examples("a.jsonl", text, masked(5)).unwrap();
    assert_eq!((read.truncated, read.left_out), (1, 1));
    assert_eq!(read.examples, [Example { ids: [&[BOS], &*tokens("abcd")].concat(), learnt_from: 2 }]);
    assert!(examples("a.jsonl", text, masked(1)).unwrap_err().contains("max_length is 1"));
}

#[test]
fn tables_name_their_columns() {
    let rows = "id\ttext\n1\tsay \"hi\n2\t\"b\"\n";
    let read = examples("a.tsv", rows, reading(32)).unwrap();
    assert_eq!(read.examples, [Example::whole(whole("say \"hi")), Example::whole(whole("\"b\""))]);
    let rows = "completion,prompt\n\"x, \"\"y\"\"\",\"a\nb\"\n";
    let read = examples("a.csv", rows, reading(32)).unwrap();
    assert_eq!(read.examples, [Example::whole(whole("a\nbx, \"y\""))]);
    assert!(
        examples("a.tsv", "id\ttext\n1\n", reading(9))
            .unwrap_err()
            .ends_with("line 2: has 1 columns, the first line 2")
    );
}

#[test]
fn errors_name_file_and_line() {
    let says = |text: &str, part: &str| {
        let message = examples("a.jsonl", text, reading(9)).unwrap_err();
        assert!(message.contains("a.jsonl: ") && message.contains(part), "{message}");
        assert!(!message.contains('\n'), "{message}");
    };
    says("", "has no lines");
    says("\n\n", "has no lines");
    says("{\"text\": \"a\"}\n\n{\"prompt\": \"b\"}", "line 3: has no text, as the first line has");
    says("{\"text\": \"a\"}\n{\"text\": 1e999}", "line 2: is no object");
    says("{\"text\": \"a\"}\n{\"text\":", "line 2: is no object");
    says("[1]", "line 1: is no object");
    says("{\"other\": \"a\"}", "line 1: has neither messages");
    says("{\"messages\": [{\"role\": \"user\", \"content\": null}]}", "line 1: is no object");
    says("{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"tool_calls\": []}]}", "tool_calls");
    says("{\"text\": \"a\", \"tools\": []}", "has tools");
    let folder = folder(&[]);
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, b"{\"text\": \"a\"}\n{\"text\": \"\xFF\"}").unwrap();
    let message = Examples::read(&path, &tokenizer(None), reading(9)).unwrap_err().to_string();
    assert!(message.ends_with("line 2: is not UTF-8"), "{message}");
    let plain = folder.path().join("a.txt");
    std::fs::write(&plain, b"one\ntwo\n\xFF").unwrap();
    let message = Examples::read(&plain, &tokenizer(None), reading(9)).unwrap_err().to_string();
    assert!(message.ends_with("a.txt: line 3: is not UTF-8"), "{message}");
    std::fs::write(&path, "\u{FEFF}{\"text\": \"a\"}").unwrap();
    assert_eq!(Examples::read(&path, &tokenizer(None), reading(9)).unwrap().examples.len(), 1);
    let other = folder.path().join("a.parquet");
    std::fs::write(&other, "").unwrap();
    assert!(Examples::read(&other, &tokenizer(None), reading(9)).unwrap_err().to_string().contains(".jsonl, .txt"));
    assert!(Examples::read(Path::new("/dev/zero.txt"), &tokenizer(None), reading(9)).is_err());
}

#[cfg(unix)]
#[test]
fn what_never_ends_is_not_read() {
    let folder = folder(&[]);
    let path = folder.path().join("train.txt");
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let message = Examples::read(&path, &tokenizer(None), reading(9)).unwrap_err().to_string();
    assert!(message.ends_with("is not a file"), "{message}");
}

#[test]
fn folders_have_their_parts_and_files_give_a_tenth() {
    let line = |n: usize| format!("{{\"text\": \"{n}\"}}\n");
    let lines: String = (0..25).map(line).collect();
    let open = |files: &[(&str, &str)], below: &str| {
        let folder = folder(files);
        Dataset::open(&folder.path().join(below), &tokenizer(None), reading(9)).map_err(|error| error.to_string())
    };
    let ids = |examples: &Examples| examples.examples.iter().map(|example| example.ids.clone()).collect::<Vec<_>>();
    let alone = open(&[("a.jsonl", &lines)], "a.jsonl").unwrap();
    assert_eq!((alone.train.examples.len(), alone.held_back, alone.test.is_none()), (23, Some(2), true));
    assert_eq!(ids(&alone.validation), [whole("23"), whole("24")]);
    let few = open(&[("a.jsonl", &(line(1) + &line(2)))], "a.jsonl").unwrap();
    assert_eq!((ids(&few.train), ids(&few.validation)), (vec![whole("1")], vec![whole("2")]));
    assert!(open(&[("a.jsonl", &line(1))], "a.jsonl").unwrap_err().contains("has one example"));
    let parts = [("train.jsonl", &*lines), ("validation.jsonl", &line(7)), ("test.tsv", "text\nt")];
    let parts = open(&parts, "").unwrap();
    assert_eq!((parts.train.examples.len(), parts.held_back), (25, None));
    assert_eq!((ids(&parts.validation), ids(&parts.test.unwrap())), (vec![whole("7")], vec![whole("t")]));
    let without = open(&[("train.jsonl", &lines), ("test.jsonl", &line(7))], "").unwrap();
    assert_eq!((without.held_back, without.test.is_some()), (Some(2), true));
    let twice = [("train.jsonl", &*lines), ("train.txt", "text")];
    assert!(open(&twice, "").unwrap_err().ends_with("has both train.jsonl and train.txt: which one is meant?"));
    assert!(open(&[("valid.jsonl", &lines)], "").unwrap_err().contains("has no train.jsonl"));
}

/// The counts behind the published loss of stories260k: windows of one `<s>` and 255 tokens each.
#[test]
fn shakespeare_has_3858_tokens_in_windows_of_255() {
    let (Some(model), Some(text)) = (shared::file("stories260k"), shared::file("tinyshakespeare/input.txt")) else {
        return;
    };
    let (tokenizer, text) = (Tokenizer::open(&model).unwrap(), read(&text));
    let text = &text[text.len() - 6000..];
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids.len(), 3858);
    assert_eq!(tokenizer.decode(&ids), text);
    let folder = folder(&[("text.txt", text)]);
    let read = Examples::read(&folder.path().join("text.txt"), &tokenizer, reading(256)).unwrap();
    assert_eq!((read.form, read.examples.len()), (Form::Plain, 16));
    assert!(read.examples.iter().all(|window| window.ids[0] == 1 && window.learnt_from == 1));
    assert_eq!(read.examples.iter().map(|window| window.ids.len()).collect::<Vec<_>>()[14..], [256, 34]);
    assert_eq!(read.examples.iter().flat_map(|window| window.ids[1..].to_vec()).collect::<Vec<_>>(), ids);
    let batches = Batches::new(read.examples, 8, 256, Layout::Padded);
    assert_eq!(batches.counted(), 3858);
    let counted: Vec<usize> = batches.validation(5).map(|batch| batch.counted()).collect();
    assert_eq!(counted, [1275, 1275, 1275, 33]);
    let widths: Vec<usize> = batches.validation(5).map(|batch| batch.context).collect();
    assert_eq!(widths, [256, 256, 256, 64]);
}

fn columns(first: &str, second: Option<&str>, label: &str) -> Columns {
    Columns { first: first.into(), second: second.map(Into::into), label: label.into() }
}

#[test]
fn labels_are_numbered() {
    let read = |text: &str, columns: &Columns, names: Option<&[String]>| {
        let folder = folder(&[("a.tsv", text)]);
        let path = folder.path().join("a.tsv");
        LabelledSet::read(&path, &tokenizer(None), columns, 9, names).map_err(|error| error.to_string())
    };
    let labels = |set: &LabelledSet| set.examples.iter().map(|example| example.label).collect::<Vec<_>>();
    let words = read("s\tlabel\na\tno\nb\tyes\nc\tno\n", &columns("s", None, "label"), None).unwrap();
    assert_eq!((labels(&words), &*words.names), (vec![0, 1, 0], &["no".to_owned(), "yes".to_owned()][..]));
    assert_eq!(words.examples[0].ids, [1, b'a' as u32 + 3]);
    let numbers = read("10\ta\n-1\tb\n9\tc\n10\td", &columns("1", None, "0"), None).unwrap();
    assert_eq!((labels(&numbers), numbers.names.join(" ")), (vec![2, 0, 1, 2], "-1 9 10".into()));
    let names = ["yes".to_owned(), "no".to_owned()];
    let given = read("s\tlabel\na\tno\n", &columns("s", None, "label"), Some(&names)).unwrap();
    assert_eq!((labels(&given), given.names.len()), (vec![1], 2));
    let pairs = read("a\tb\tl\nabcdef\txy\t0\n", &columns("a", Some("b"), "l"), None).unwrap();
    assert_eq!((pairs.examples[0].second, pairs.examples[0].ids.len(), pairs.truncated), (Some(7), 9, 1));
    let fails = |text: &str, columns: &Columns| read(text, columns, Some(&names)).unwrap_err();
    assert!(
        fails("s\tl\na\tmaybe\n", &columns("s", None, "l"))
            .ends_with("line 2: the label is \"maybe\", which is none of yes, no")
    );
    assert!(fails("s\tl\n", &columns("t", None, "l")).ends_with("line 1: has no column \"t\"; it has s, l"));
    assert!(fails("a\t0\n", &columns("0", None, "2")).contains("column 2"));
    assert!(fails("s\tl\n", &columns("s", None, "l")).contains("no lines but its header"));
    assert!(fails("", &columns("s", None, "l")).contains("has no lines"));
}

#[test]
fn glue_has_its_published_sizes() {
    let (Some(bert), Some(glue)) = (shared::file("tokenizers/bert-uncased"), shared::file("glue")) else { return };
    let tokenizer = Tokenizer::open(&bert).unwrap();
    let sizes = |name: &str, columns: Columns| {
        let set = LabelledSet::read(&glue.join(name), &tokenizer, &columns, 128, None).unwrap();
        let pairs = set.examples.iter().filter(|example| example.second.is_some()).count();
        (set.examples.len(), pairs, set.names.join(" "))
    };
    assert_eq!(sizes("SST-2/dev.tsv", columns("sentence", None, "label")), (872, 0, "0 1".into()));
    assert_eq!(sizes("CoLA/dev.tsv", columns("3", None, "1")), (1043, 0, "0 1".into()));
    let rte = sizes("RTE/dev.tsv", columns("sentence1", Some("sentence2"), "label"));
    assert_eq!((rte.0, rte.1, rte.2), (277, 277, "not_entailment entailment".into()));
    let qnli = sizes("QNLI/dev.tsv", columns("question", Some("sentence"), "label"));
    assert_eq!((qnli.0, qnli.1), (5463, 5463));
}
