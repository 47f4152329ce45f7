//! Conversations, written as text by the template that a model comes with.
//!
//! Templates are Jinja with Python's methods on strings, lists and maps, rendered as the `transformers` library does:
//! lines and indentation of block tags leave no trace, a template sees `messages`, `add_generation_prompt`, the texts of
//! special tokens, `raise_exception`, `strftime_now` (UTC) and `tojson` as Python writes it, and can break out of loops.
//! `tools` and `documents` are none. A template that marks what was generated (`generation`) is rendered without marks.
//!
//! A template may come from anywhere. Its work and the text it makes are bounded by fuel in proportion to the messages,
//! its nesting by a stack of its own. What fuel does not pay for, such as comparing values that hold themselves over and
//! over, is given up after five seconds; its thread goes on until it or the process ends.

mod clock;
mod json;
mod methods;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// Fuel of a rendering; one pays for an instruction or 64 bytes of text. Published templates take about a hundred for a
/// message.
const FUEL: u64 = 200_000;
const FUEL_PER_MESSAGE: u64 = 2_000;
/// Bytes of stack for one of fuel: room for values nested as deeply as it allows. They are taken only where it comes to
/// that.
const STACK_PER_FUEL: usize = 1280;
/// No published template takes longer than milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn value(&self) -> Value {
        Value::from_pairs([("role", self.role.as_str()), ("content", self.content.as_str())])
    }
}

/// A chat template, compiled once; a broken one is an error when it is used, since texts need none.
pub struct Template(Result<Environment<'static>, String>);

impl Template {
    pub fn new(source: String) -> Template {
        Template(environment(source).map_err(|error| describe(&error)))
    }

    /// The messages as text; `names` are special tokens with their texts, `now` is in seconds since 1970.
    pub fn render(
        &self,
        messages: &[Message],
        prompt: bool,
        names: &[(String, String)],
        now: i64,
    ) -> Result<String, String> {
        let mut environment = self.0.as_ref().map_err(String::clone)?.clone();
        let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        // Every text may be looked at or copied eight times.
        let fuel = FUEL + FUEL_PER_MESSAGE * messages.len() as u64 + bytes as u64 / 8;
        environment.set_fuel(Some(fuel));
        environment.add_function("strftime_now", move |format: &str| {
            clock::strftime(now, format).map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))
        });
        let conversation = Value::from_iter(messages.iter().map(Message::value));
        let given = [("messages", conversation), ("add_generation_prompt", prompt.into())];
        let none = ["tools", "documents"].map(|name| (name, Value::from(())));
        let names = names.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str())));
        let context = Value::from_pairs(given.into_iter().chain(none).chain(names));
        within_limits(environment, context, fuel as usize * STACK_PER_FUEL)
    }
}

/// Renders in a thread of its own, for the depth of its stack and for a way out.
fn within_limits(environment: Environment<'static>, context: Value, stack: usize) -> Result<String, String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let run = move || {
        let rendered = environment.get_template("chat").and_then(|template| template.render(context));
        // Nobody listens any more if it took too long.
        let _ = sender.send(rendered.map_err(|error| describe(&error)));
    };
    let thread = std::thread::Builder::new().stack_size(stack).spawn(run);
    thread.map_err(|error| format!("no thread to render in: {error}"))?;
    match receiver.recv_timeout(PATIENCE) {
        Ok(rendered) => rendered,
        Err(RecvTimeoutError::Timeout) => Err(format!("not rendered within {} seconds", PATIENCE.as_secs())),
        Err(RecvTimeoutError::Disconnected) => Err("cannot be rendered".into()),
    }
}

fn environment(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::python);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_template_owned("chat", unmarked(&source))?;
    Ok(environment)
}

/// The template without `{% generation %}` and `{% endgeneration %}`, which only mark a part of the text.
fn unmarked(source: &str) -> String {
    let mut kept = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start + 2..].find("%}").map(|end| end + 4) else { break };
        let tag = &rest[start..start + length];
        let name = tag[2..length - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        kept.push_str(&rest[..start]);
        match name {
            // Something empty in its place, with the tag's own rules about the space around it.
            "generation" => kept.push_str(&tag.replacen(name, "if true", 1)),
            "endgeneration" => kept.push_str(&tag.replacen(name, "endif", 1)),
            _ => kept.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    kept + rest
}

/// One line about what went wrong, with the template's line.
fn describe(error: &Error) -> String {
    let text = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    let text = text.lines().next().unwrap_or_default().chars().take(300).collect::<String>();
    match error.line() {
        Some(line) => format!("line {line}: {text}"),
        None => text,
    }
}
