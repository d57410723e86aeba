//! A profile's TOML as typed values, with the place of what does not fit.
//!
//! Read from the parsed document instead of by `toml`'s own deserializer, which has every type's code
//! once for tables, once for dates and once for spans: 130 kB of a router's binary.

use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor, value::StrDeserializer,
};
use std::{fmt, ops::Range, slice};
use toml::{
    Spanned,
    de::{DeInteger, DeString, DeTable, DeValue},
    map,
};

/// What is no TOML, or does not fit the type that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Dotted, as in `tool.argv`; empty where the text is not TOML, or the profile lacks a key.
    pub key: String,
    pub problem: String,
    /// Bytes of the text; the innermost value or key around it.
    pub span: Option<Range<usize>>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => f.write_str(&self.problem),
            key => write!(f, "{key}: {}", self.problem),
        }
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self { key: String::new(), problem: problem.to_string(), span: None }
    }
}

impl Misfit {
    fn at(mut self, place: &Range<usize>) -> Self {
        self.span.get_or_insert_with(|| place.clone());
        self
    }

    fn below(mut self, key: &str) -> Self {
        if !self.key.is_empty() {
            self.key.insert(0, '.');
        }
        self.key.insert_str(0, key);
        self
    }
}

/// The `T` that `text` says.
///
/// # Errors
/// It is not TOML, or no `T`.
pub fn read<T: for<'de> de::Deserialize<'de>>(text: &str) -> Result<T, Misfit> {
    let root = DeTable::parse(text).map_err(|error| Misfit {
        key: String::new(),
        problem: error.message().trim().to_owned(),
        span: error.span(),
    })?;
    let span = root.span();
    let root = Spanned::new(span.clone(), DeValue::Table(root.into_inner()));
    T::deserialize(Node(&root)).map_err(|error| error.at(&span))
}

#[derive(Clone, Copy)]
struct Node<'t>(&'t Spanned<DeValue<'t>>);

impl Node<'_> {
    fn misfit(self, expected: &dyn Expected) -> Misfit {
        let found = match self.0.get_ref() {
            DeValue::String(text) => Unexpected::Str(text),
            DeValue::Integer(number) => match signed(number) {
                Some(number) => Unexpected::Signed(number),
                None => Unexpected::Other("integer"),
            },
            DeValue::Float(_) => Unexpected::Other("number with a fraction"),
            DeValue::Boolean(flag) => Unexpected::Bool(*flag),
            DeValue::Datetime(_) => Unexpected::Other("date"),
            DeValue::Array(_) => Unexpected::Seq,
            DeValue::Table(_) => Unexpected::Map,
        };
        de::Error::invalid_type(found, expected)
    }
}

fn signed(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Methods that take one kind of value each.
macro_rules! take {
    ($($method:ident $pattern:pat => |$visitor:ident| $visit:expr;)+) => {$(
        fn $method<V: Visitor<'de>>(self, $visitor: V) -> Result<V::Value, Misfit> {
            match self.0.get_ref() {
                $pattern => $visit,
                _ => Err(self.misfit(&$visitor)),
            }
        }
    )+};
}

/// Every number is as long as TOML's.
macro_rules! numbers {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            match self.0.get_ref() {
                DeValue::Integer(number) => match signed(number) {
                    Some(number) => visitor.visit_i64(number),
                    None => Err(de::Error::custom("the number is too large")),
                },
                _ => Err(self.misfit(&visitor)),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Misfit;

    take! {
        deserialize_bool DeValue::Boolean(flag) => |visitor| visitor.visit_bool(*flag);
        deserialize_str DeValue::String(text) => |visitor| visitor.visit_str(text);
        deserialize_string DeValue::String(text) => |visitor| visitor.visit_str(text);
        deserialize_seq DeValue::Array(list) => |visitor| visitor.visit_seq(List(list.iter()));
        deserialize_map DeValue::Table(table) => |visitor| visitor.visit_map(Table { rest: table.iter(), current: None });
    }
    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    /// One of a list of words: no profile says more in one.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_enum(word(text)),
            _ => Err(self.misfit(&visitor)),
        }
    }

    /// What is not set is not there.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0.get_ref() {
            DeValue::String(_) => self.deserialize_str(visitor),
            DeValue::Integer(_) => self.deserialize_i64(visitor),
            DeValue::Boolean(_) => self.deserialize_bool(visitor),
            DeValue::Array(_) => self.deserialize_seq(visitor),
            DeValue::Table(_) => self.deserialize_map(visitor),
            DeValue::Float(_) | DeValue::Datetime(_) => Err(self.misfit(&visitor)),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

fn word(text: &str) -> StrDeserializer<'_, Misfit> {
    text.into_deserializer()
}

struct List<'t>(slice::Iter<'t, Spanned<DeValue<'t>>>);

impl<'de> SeqAccess<'de> for List<'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misfit> {
        let Some(element) = self.0.next() else { return Ok(None) };
        seed.deserialize(Node(element)).map(Some).map_err(|error| error.at(&element.span()))
    }
}

struct Table<'t> {
    rest: map::Iter<'t, Spanned<DeString<'t>>, Spanned<DeValue<'t>>>,
    /// The key that was read last, and its value.
    current: Option<(&'t str, &'t Spanned<DeValue<'t>>)>,
}

impl<'de> MapAccess<'de> for Table<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        let name = key.get_ref();
        self.current = Some((name, value));
        seed.deserialize(word(name)).map(Some).map_err(|error| error.at(&key.span()).below(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let Some((name, value)) = self.current.take() else {
            return Err(de::Error::custom("a value was read before its key"));
        };
        seed.deserialize(Node(value)).map_err(|error| error.at(&value.span()).below(name))
    }
}
