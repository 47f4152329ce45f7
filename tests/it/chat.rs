//! Chat templates: as transformers renders them, and no further than their fuel goes.

use crate::published::{bytes, folder, tokenizer};
use eckart::data::{Message, Tokenizer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/chat.json")).unwrap()
}

fn conversation(turns: &Value) -> Vec<Message> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    turns.as_array().unwrap().iter().map(|turn| Message::new(text(&turn[0]), text(&turn[1]))).collect()
}

#[test]
fn templates_are_rendered_as_transformers_does() {
    let fixture = fixture();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 36);
    for case in cases {
        let name = case["template"].as_str().unwrap();
        let tokenizer = tokenizer(fixture["templates"][name].as_str());
        let messages = conversation(&fixture["conversations"][case["conversation"].as_str().unwrap()]);
        let text = tokenizer.chat(&messages, case["prompt"].as_bool().unwrap()).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{name}, {}", case["conversation"]);
    }
}

#[test]
fn a_template_refuses_in_its_own_words() {
    let fixture = fixture();
    let tokenizer = tokenizer(fixture["templates"]["alternating"].as_str());
    let twice = [Message::new("user", "a"), Message::new("user", "b")];
    let message = tokenizer.chat(&twice, false).unwrap_err().to_string();
    assert!(message.ends_with("chat template: line 4: roles must alternate"), "{message}");
}

#[test]
fn the_template_is_found_where_it_may_be() {
    let open = |config: Value, file: Option<&str>| {
        let (tokenizer, config) = (bytes(), config.to_string());
        let mut files = vec![("tokenizer.json", &*tokenizer), ("tokenizer_config.json", &*config)];
        files.extend(file.map(|file| ("chat_template.jinja", file)));
        let tokenizer = Tokenizer::open(folder(&files).path())?;
        tokenizer.chat(&[Message::new("user", "x")], false)
    };
    assert_eq!(open(json!({"chat_template": "text"}), None).unwrap(), "text");
    let named = json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "usual"}]);
    assert_eq!(open(json!({"chat_template": named}), None).unwrap(), "usual");
    assert_eq!(open(json!({"chat_template": "text"}), Some("file\n")).unwrap(), "file");
    let lacking = open(json!({"chat_template": [{"name": "rag", "template": ""}]}), None).unwrap_err().to_string();
    assert!(lacking.contains("default"), "{lacking}");
    assert!(open(json!({}), None).unwrap_err().to_string().contains("no chat template"));
    assert!(open(json!({"chat_template": "{% for %}"}), None).unwrap_err().to_string().contains("line 1"));
}

#[test]
fn the_clock_stands_where_it_is_put() {
    let tokenizer = tokenizer(Some("{{ strftime_now('%d %b %Y') }}")).at(951_782_400);
    assert_eq!(tokenizer.chat(&[], false).unwrap(), "29 Feb 2000");
}

/// Lists that hold themselves over and over: 2²⁷ numbers in a few lines.
const NESTED: &str = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(27) %}\
                      {% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}";

/// Each would run for hours, or fill the memory or the stack, if nothing stopped it.
const HOSTILE: [&str; 11] = [
    "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set ns = namespace(x='a') %}{% for i in range(90000) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "{{ 'a' * 90000000 }}",
    "{% set s = 'a' * 3000000 %}{{ s.replace('a', s) }}",
    "{% set s = 'a' * 3000000 %}{{ s.join([s] * 90000) }}",
    "{{ '{:>99999999999}'.format('a') }}{{ '%99999999999d' | format(1) }}",
    "{% set s = 'a' * 3000000 %}{% for i in range(90000) %}{{ s.find('b') }}{{ s.count('ab') }}{% endfor %}",
    "{% set s = 'a' * 3000000 %}{% for i in range(90000) %}{% set t = s.split('a') %}{% endfor %}",
];

/// A hundred thousand lists in one another: dropped, written, compared, hashed.
fn deep() -> impl Iterator<Item = String> {
    let nested = |name: &str| format!("{{% set ns.{name} = {}ns.{name}{} %}}", "[".repeat(60), "]".repeat(60));
    let (x, y) = (nested("x"), nested("y"));
    let uses = [
        (x.clone(), 2000, "{{ ns.x }}"),
        (x.clone(), 2000, "{{ {ns.x: 1} }}"),
        (x.clone(), 2000, "{{ ns.x ~ 'a' }}"),
        (x.clone(), 2000, "{{ ns.x | tojson }}"),
        (x.clone(), 90_000, ""),
        (x + &y, 1000, "{{ ns.x == ns.y }}"),
    ];
    let start = "{% set ns = namespace(x=[], y=[]) %}";
    uses.into_iter().map(move |(nest, times, end)| {
        format!("{start}{{% for i in range({times}) %}}{nest}{{% endfor %}}{end}{{{{ raise_exception('end') }}}}")
    })
}

/// How it ended, if it ended too late or well.
fn not_stopped(template: &str) -> Option<String> {
    let tokenizer = tokenizer(Some(template));
    let start = Instant::now();
    let result = tokenizer.chat(&[Message::new("user", "x")], true);
    let took = start.elapsed();
    (took > Duration::from_secs(20) || result.is_ok()).then(|| format!("{template}: {took:?}, {:?}", result.err()))
}

#[test]
fn hostile_templates_stop() {
    let mut all: Vec<String> = HOSTILE.map(str::to_owned).into();
    all.extend(deep());
    all.push("{%}{% generation %}".into());
    all.extend(["{{ ns.x | tojson }}", "{{ ns.x == ns.y }}"].map(|end| NESTED.to_owned() + end));
    let wrong: Vec<String> = all.iter().filter_map(|template| not_stopped(template)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What fuel does not pay for, in more ways; each leaves a thread busy for a while.
#[test]
#[ignore = "minutes of busy threads"]
fn nested_values_are_given_up() {
    let ends =
        ["{{ ns.x }}", "{{ [ns.x].count(ns.y) }}", "{{ {ns.x: 1} }}", "{{ ns.x ~ 'a' }}", "{{ ns.x in [ns.y] }}"];
    let wrong: Vec<String> = ends.iter().filter_map(|end| not_stopped(&(NESTED.to_owned() + end))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
