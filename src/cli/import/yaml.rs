//! YAML as a tree in which every value knows its line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value with its line.
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) data: Data,
}

pub(super) enum Data {
    Nothing,
    Bool(bool),
    /// As it would be written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<(String, Node)>),
}

/// Reads a document.
///
/// # Errors
/// It is no YAML, in words with line and column.
pub(super) fn read(text: &str) -> Result<Node, String> {
    let tree: Spanned<Tree> = serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    Ok(tree.into())
}

impl Node {
    pub(super) fn entries(&self) -> &[(String, Node)] {
        match &self.data {
            Data::Table(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The scalar as it would be written.
    pub(super) fn text(&self) -> Option<String> {
        match &self.data {
            Data::Bool(value) => Some(value.to_string()),
            Data::Number(text) | Data::Text(text) => Some(text.clone()),
            Data::Nothing | Data::List(_) | Data::Table(_) => None,
        }
    }

    pub(super) fn text_of(&self, key: &str) -> Option<String> {
        self.get(key)?.text()
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Node { data: Data::Bool(true), .. }))
    }

    pub(super) fn is_false(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Node { data: Data::Bool(false), .. }))
    }

    /// A list of scalars, or a scalar alone.
    pub(super) fn texts_of(&self, key: &str) -> Vec<String> {
        match self.get(key) {
            Some(Node { data: Data::List(items), .. }) => items.iter().filter_map(Node::text).collect(),
            Some(node) => node.text().into_iter().collect(),
            None => Vec::new(),
        }
    }
}

impl From<Spanned<Tree>> for Node {
    fn from(tree: Spanned<Tree>) -> Node {
        Node { line: tree.referenced.line(), data: tree.value.0 }
    }
}

struct Tree(Data);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(Reader).map(Tree)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Data, E> {
        Ok(Data::Nothing)
    }

    fn visit_none<E: Error>(self) -> Result<Data, E> {
        Ok(Data::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(Reader)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Number(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Data, E> {
        Ok(Data::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Number(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Tree>>()? {
            list.push(item.into());
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Data, A::Error> {
        let mut table = Vec::new();
        while let Some((key, value)) = entries.next_entry::<String, Spanned<Tree>>()? {
            table.push((key, value.into()));
        }
        Ok(Data::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let text = "a: 1\nlist:\n  - x: \"200\"\n    y: true\n  - ~\nmerged:\n  <<: &base {z: 1.5}\n  w: [1, two]\n";
        let root = read(text).unwrap();
        let first = &root.get("list").unwrap().items()[0];
        let lines = [root.get("a").unwrap().line, first.line, first.get("y").unwrap().line];
        assert_eq!(lines, [1, 3, 4]);
        assert!(matches!(&first.get("x").unwrap().data, Data::Text(text) if text == "200"));
        assert!(first.is_true("y") && !first.is_false("y"));
        assert_eq!(root.get("merged").unwrap().text_of("z").as_deref(), Some("1.5"));
        assert_eq!(root.get("merged").unwrap().texts_of("w"), ["1", "two"]);
        assert!(read("a: [").is_err());
    }
}
