//! Values as they stand in PEFT's configurations.

use super::names::Names;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

/// `true`, `false`, or a name, in lower case.
pub(super) enum Init {
    Usual,
    Name(String),
}

impl<'de> Deserialize<'de> for Init {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Init, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Init;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or the name of a start")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Init, E> {
                Ok(Init::Usual)
            }
            fn visit_str<E>(self, name: &str) -> Result<Init, E> {
                Ok(Init::Name(name.to_lowercase()))
            }
        }
        from.deserialize_any(Either)
    }
}

/// One value, or a list of them.
pub(super) struct OneOrMore<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<OneOrMore<T>, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            One(T),
            More(Vec<T>),
        }
        Ok(OneOrMore(match Either::deserialize(from)? {
            Either::One(one) => vec![one],
            Either::More(more) => more,
        }))
    }
}

/// A JSON object in the order of the file, which counts here.
pub(super) struct Ordered<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Ordered<T>, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and numbers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        from.deserialize_map(Entries(PhantomData))
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

/// Whether anything is given that is not null, false or empty.
#[derive(Clone, Copy, Default)]
pub(super) struct Set(pub bool);

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Set, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Set;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_bool<E>(self, given: bool) -> Result<Set, E> {
                Ok(Set(given))
            }
            fn visit_unit<E>(self) -> Result<Set, E> {
                Ok(Set(false))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Set, E> {
                Ok(Set(true))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Set, E> {
                Ok(Set(true))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Set, E> {
                Ok(Set(true))
            }
            fn visit_str<E>(self, text: &str) -> Result<Set, E> {
                Ok(Set(!text.is_empty()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Set, A::Error> {
                let mut set = false;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    set = true;
                }
                Ok(Set(set))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Set, A::Error> {
                let mut set = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    set = true;
                }
                Ok(Set(set))
            }
        }
        from.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Names, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names or a regular expression")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Names, E> {
                Names::from_text(text).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = BTreeSet::new();
                while let Some(name) = list.next_element::<String>()? {
                    names.insert(name);
                }
                Ok(Names::List(names))
            }
        }
        from.deserialize_any(Either)
    }
}
