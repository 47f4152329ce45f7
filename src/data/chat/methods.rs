//! Python's methods on a template's values, paid for before they run.

use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// As much text as one unit of fuel pays for.
const BYTES_PER_FUEL: u64 = 64;

/// A method that the engine does not know itself.
pub fn python(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let length = |value: &Value| value.as_str().map(str::len).or_else(|| value.len()).unwrap_or(0) as u64;
    state.consume_fuel(std::iter::once(value).chain(args).map(length).sum::<u64>() / BYTES_PER_FUEL)?;
    match (value.as_str(), method) {
        // What makes text longer than what it is given goes through filters, which pay for the result beforehand.
        (Some(_), "replace") => filter(state, "replace", &[std::slice::from_ref(value), args].concat()),
        (Some(_), "join") => match args {
            [values] => filter(state, "join", &[values.clone(), value.clone()]),
            _ => Err(Error::new(ErrorKind::MissingArgument, "join takes one list")),
        },
        // A width in a format is a length that no text pays for.
        (Some(_), "format") => Err(Error::new(ErrorKind::UnknownMethod, "str.format is not for chat templates; use ~")),
        _ => unknown_method_callback(state, value, method, args),
    }
}

fn filter(state: &mut State, name: &str, args: &[Value]) -> Result<Value, Error> {
    state.apply_filter(name, args)
}
