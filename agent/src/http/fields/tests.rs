//! Tests of fields.

use proptest::prelude::*;

use super::*;

/// What is done to fields: to one, or to a list that was laid out.
#[derive(Debug, Clone)]
enum Act {
    Append(&'static str),
    AppendNamed(&'static str),
    Set(&'static str),
    SetNamed(&'static str),
    SetOwnNamed(&'static str),
    Remove(&'static str),
    RemoveNamed(&'static str),
    AppendAll(Vec<&'static str>),
    SetAll(Vec<&'static str>),
    RemoveUnderscored,
    Clear,
}

const NAMES: [&str; 12] =
    ["Vary", "vary", "Origin", "origin", "X-A", "x-a", "X_A", "ETag", "X-Frame-Options", "X-Request-Id", "Age", "aGE"];

fn acts() -> impl Strategy<Value = Act> {
    let name = || proptest::sample::select(&NAMES[..]);
    let names = || proptest::collection::vec(name(), 0..4);
    prop_oneof![
        name().prop_map(Act::Append),
        name().prop_map(Act::AppendNamed),
        name().prop_map(Act::Set),
        name().prop_map(Act::SetNamed),
        name().prop_map(Act::SetOwnNamed),
        name().prop_map(Act::Remove),
        name().prop_map(Act::RemoveNamed),
        names().prop_map(Act::AppendAll),
        names().prop_map(Act::SetAll),
        Just(Act::RemoveUnderscored),
        Just(Act::Clear),
    ]
}

fn apply(act: &Act, fields: &mut Fields, model: &mut Vec<(&'static str, String)>, value: &str) {
    let without = |model: &mut Vec<(&str, String)>, name: &str| model.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    let named = |name: &&'static str| FieldName::new(*name);
    match act {
        Act::Append(name) => fields.append(name, value),
        Act::AppendNamed(name) => fields.append_named(&named(name), value),
        Act::Set(name) => fields.set(name, value),
        Act::SetNamed(name) => fields.set_named(&named(name), value),
        Act::SetOwnNamed(name) => fields.set_own_named(&named(name), value.as_bytes()),
        Act::Remove(name) => _ = fields.remove(name),
        Act::RemoveNamed(name) => _ = fields.remove_named(&named(name)),
        Act::AppendAll(names) | Act::SetAll(names) => {
            let mut list = Fields::new();
            names.iter().for_each(|name| list.append(name, value));
            let list = list.laid_out();
            if matches!(act, Act::SetAll(_)) { fields.set_all(&list) } else { fields.append_all(&list) }
        }
        Act::RemoveUnderscored => fields.remove_underscored(),
        Act::Clear => fields.clear(),
    }
    match act {
        Act::Set(name) | Act::SetNamed(name) | Act::SetOwnNamed(name) | Act::Remove(name) | Act::RemoveNamed(name) => {
            without(model, name)
        }
        Act::SetAll(names) => names.iter().for_each(|name| without(model, name)),
        Act::RemoveUnderscored => model.retain(|(name, _)| !name.contains('_')),
        Act::Clear => model.clear(),
        _ => {}
    }
    match act {
        Act::Append(name) | Act::AppendNamed(name) | Act::Set(name) | Act::SetNamed(name) | Act::SetOwnNamed(name) => {
            model.push((name, value.to_owned()))
        }
        Act::AppendAll(names) | Act::SetAll(names) => model.extend(names.iter().map(|name| (*name, value.to_owned()))),
        _ => {}
    }
}

proptest! {
    #[test]
    fn whatever_is_done_a_plain_list_would_hold_the_same(acts in proptest::collection::vec(acts(), 0..24)) {
        let (mut fields, mut model) = (Fields::new(), Vec::new());
        for (number, act) in acts.iter().enumerate() {
            apply(act, &mut fields, &mut model, &number.to_string());
            let held: Vec<_> = fields.iter().map(|field| (field.name, field.value)).collect();
            let expected: Vec<_> = model.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            prop_assert_eq!(held, expected);
            for name in NAMES {
                let mut expected = model.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes());
                let known = FieldName::new(name);
                prop_assert!(fields.get_all_named(&known).eq(expected.clone()));
                let first = expected.next();
                prop_assert_eq!((fields.get(name), fields.get_named(&known)), (first, first));
            }
        }
        let mut lines = Vec::new();
        let written = fields.write_lines(&mut lines, Name::Origin.bit());
        let rest = || model.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("origin"));
        let expected: String = rest().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        prop_assert_eq!(lines, expected.into_bytes());
        prop_assert_eq!(written, rest().fold(0, |set, (name, _)| set | Name::find(name.as_bytes()).bit()));
    }
}

#[test]
fn what_cannot_stand_in_a_message_is_not_laid_out() {
    let mut fields = Fields::new();
    fields.append("X-Good", "1");
    fields.append("X-Bad", "a\r\nb: c");
    fields.append("not a token", "2");
    let names: Vec<_> = fields.laid_out().iter().map(|field| field.name.to_vec()).collect();
    assert_eq!(names, [b"X-Good"]);
}

fn sample() -> Fields {
    let mut fields = Fields::new();
    fields.append("Host", "a.example");
    fields.append("X-Tag", "1");
    fields.append("x-tag", "2");
    fields
}

#[test]
fn names_are_found_in_any_case_and_order_is_kept() {
    let fields = sample();
    assert_eq!(fields.get("HOST"), Some(&b"a.example"[..]));
    assert_eq!(fields.get_known(Name::Host), Some(&b"a.example"[..]));
    assert_eq!(fields.get_all("X-TAG").collect::<Vec<_>>(), [b"1", b"2"]);
}

#[test]
fn set_replaces_all_and_remove_counts() {
    let mut fields = sample();
    fields.set("x-Tag", "3");
    assert_eq!(fields.get_all("x-tag").collect::<Vec<_>>(), [b"3"]);
    assert_eq!(fields.remove("x-tag"), 1);
    assert_eq!(fields.remove("x-tag"), 0);
    assert_eq!(fields.len(), 1);
}
