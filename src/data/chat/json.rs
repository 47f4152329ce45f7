//! JSON as Python's `json.dumps(…, ensure_ascii=False)` writes it, which is what models have seen of tools and arguments.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// Deeper values than this are nobody's.
const DEEPEST: usize = 100;

/// The filter `tojson`: `indent` is a number of spaces.
pub fn tojson(state: &State, value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    if indent.is_some_and(|indent| indent > 16) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: indent is more than 16"));
    }
    // Python's other settings change nothing here, or too much to be guessed.
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut writer = Writer { state, indent, text: String::new() };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    indent: Option<usize>,
    text: String,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        self.state.consume_fuel(1 + value.as_str().map_or(0, str::len) as u64 / 64)?;
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => {
                let problem = format!("tojson: {kind} is not JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, problem));
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        // The same escapes as Python's: quotes, backslashes and control characters, nothing else.
        self.text.push_str(&serde_json::Value::from(text).to_string());
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('[');
        let mut empty = true;
        for item in list.try_iter()? {
            self.separate(empty, depth + 1);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(']', empty, depth);
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        self.text.push('{');
        let mut empty = true;
        for key in map.try_iter()? {
            self.separate(empty, depth + 1);
            empty = false;
            self.string(&key.to_string());
            self.text.push_str(": ");
            self.value(&map.get_item(&key)?, depth + 1)?;
        }
        self.close('}', empty, depth);
        Ok(())
    }

    fn separate(&mut self, first: bool, depth: usize) {
        if !first {
            self.text.push(',');
        }
        match self.indent {
            Some(indent) => self.line(indent * depth),
            None if !first => self.text.push(' '),
            None => {}
        }
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) {
        if let (Some(indent), false) = (self.indent, empty) {
            self.line(indent * depth);
        }
        self.text.push(bracket);
    }

    fn line(&mut self, spaces: usize) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', spaces));
    }
}
