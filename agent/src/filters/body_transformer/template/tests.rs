//! Tests of the template language.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Scene, Template};

fn scene(root: &Value) -> Scene<'_> {
    static PARTS: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| json!({"f": {"value": "part", "headers": {"content-type": "text/plain"}}}));
    Scene { root, body: "<raw>", parts: &PARTS, look: &|_| Some("seen".to_owned()), limit: 10_000 }
}

fn rendered(source: &str) -> String {
    let root = json!({"name": "a<b>/\"c'", "n": 5, "f": 1.5, "yes": true, "no": false, "nothing": null, "list": [1, "two", {"x": 3}],
        "deep": {"a": {"b": ["z"]}}, "text": "12", "empty": [], "xml": {"_attr": {"id": "7"}, "1": "inner"}});
    Template::compile(source).unwrap().render(&scene(&root)).unwrap_or_else(|error| format!("error: {error}"))
}

#[test]
fn expressions_are_those_of_lua() {
    for (source, expected) in [
        ("plain { \"json\": {} }", "plain { \"json\": {} }"),
        ("{{name}}|{*name*}", "a&lt;b&gt;&#47;&quot;c&#39;|a<b>/\"c'"),
        ("{{n}} {{f}} {{yes}} {{nothing}}|{{missing.deeper}}", "5 1.5 true |"),
        ("{*list*} {{ list[1] }}{{list[2]}}{{list[3].x}}{{list[0]}}{{list[4]}}", "[1,\"two\",{\"x\":3}] 1two3"),
        ("{{deep.a[\"b\"][1]}}{{deep['a'].b[n - 4]}}", "zz"),
        ("{{name .. ' world' .. 1 .. missing}}", "a&lt;b&gt;&#47;&quot;c&#39; world1"),
        ("{{1 + 2 * 3 - 4 / 2}} {{7 % 3}} {{-7 % 3}} {{(1 + 2) * 3}} {{-n}} {{text + 1}} {{10 / 4}}", "5 1 2 9 -5 13 2.5"),
        (
            "{{n == 5}} {{n ~= 5}} {{n > 4 and n <= 5}} {{'a' < 'b'}} {{not yes}} {{no or 'else'}} {{missing == nil}}",
            "true false true true false else true",
        ),
        ("{{yes and n or 0}} {{n == 5.0}} {{'5' == n}} {{#list}} {{#'äb'}} {{#empty}}", "5 true false 3 3 0"),
        (
            "{*_escape_json(name)*} {*_escape_json(list)*} {*_escape_xml(name)*}",
            "\"a<b>/\\\"c'\" [1,\"two\",{\"x\":3}] a&lt;b&gt;/&quot;c&apos;",
        ),
        (
            "{{tostring(missing)}} {{tonumber('4') + 1}} {{tonumber('x')}} {{type(list)}} {{string.upper('a')}}{{string.lower('B')}}",
            "nil 5  table Ab",
        ),
        ("{*_body*} {{_ctx.var.host}} {{_ctx.var['arg_x']}}", "<raw> seen seen"),
        ("{{_multipart:get('f').value}} {{_multipart.f.headers['content-type']}}", "part text&#47;plain"),
        ("{{xml._attr.id}} {{xml[1]}} {{name[1] == name}}", "7 inner true"),
        ("a{# no }} matter #}\nb \\{{name}} \\{* \\{% ok", "ab {{name}} {* {% ok"),
        ("{{\"}}\"}}{*'*}'*}", "}}*}"),
        ("{[ no end, {( none and {- none", "{[ no end, {( none and {- none"),
    ] {
        assert_eq!(rendered(source), expected, "{source}");
    }
}

#[test]
fn blocks_choose_and_repeat() {
    for (source, expected) in [
        ("{% if n > 5 then %}a{% elseif n == 5 then %}b{% else %}c{% end %}", "b"),
        ("{% if nothing then %}a{% end %}.", "."),
        ("{% for i, v in ipairs(list) do %}{{i}}={*v*};{% end %}", "1=1;2=two;3={\"x\":3};"),
        ("{% for k, v in pairs(deep.a) do %}{{k}}:{{v[1]}}{% end %}", "b:z"),
        ("{% for i, v in ipairs(missing) do %}x{% end %}{% for k, v in ipairs(deep) do %}x{% end %}", ""),
        ("{% for i = 1, 3 do %}{{i}}{% end %}{% for i = 3, 1, -2 do %}{{i}}{% end %}", "12331"),
        ("{% local x = n + 1 %}\n{{x}}{% if yes then %}{% local x = 'in' %}{{x}}{% end %}{{x}}", "6in6"),
        ("{\n{% for i, v in ipairs({}) do %}{% end %}}", ""),
    ] {
        if source.contains("({})") {
            assert!(Template::compile(source).is_err(), "tables are not made");
            continue;
        }
        assert_eq!(rendered(source), expected, "{source}");
    }
}

#[test]
fn what_is_no_part_of_the_language_is_refused_with_its_line() {
    for (source, part) in [
        ("a\n{{", "line 2: the tag {{ has no end }}"),
        ("{{}}", "line 1: expected an expression"),
        ("{{a b}}", "unexpected"),
        ("{{a.}}", "expected a name"),
        ("{{a + }}", "expected an expression"),
        ("{{'a}}", "has no end"),
        ("{{os.execute('x')}}", "unexpected"),
        ("{{io('x')}}", "`io` is refused"),
        ("{{a:sub(1)}}", "methods are refused"),
        ("{{_ctx.headers}}", "only _ctx.var.NAME"),
        ("{{_ctx}}", "only _ctx.var.NAME"),
        ("{% return 1 %}", "`return` is refused"),
        ("\n{% end %}", "line 2: `end` belongs to no block"),
        ("{% if a then %}", "`if` has no `end`"),
        ("{% if a %}{% end %}", "expected `then`"),
        ("{% if a then %}{% else %}{% else %}{% end %}", "behind `else`"),
        ("{% for a in pairs(b) do %}{% end %}", "expected `,`"),
        ("{% for a, b in next(b) do %}{% end %}", "expected `in ipairs"),
        ("{% for a, b in pairs(c) do %}", "`for` has no `end`"),
        ("{% local = 1 %}", "expected a name"),
        ("{(file.html)}", "would include a file"),
        ("{-block-}x{-block-}", "blocks"),
        ("{{a ! b}}", "unexpected `!`"),
        ("{{'\\q'}}", "unknown escape"),
    ] {
        let error = Template::compile(source).unwrap_err();
        assert!(error.contains(part), "{source}: {error}");
    }
}

#[test]
fn nothing_grows_without_bound() {
    for (source, part) in [
        ("{% for i = 1, 1000000000 do %}{% end %}", "steps"),
        ("{% for i = 1, 100000 do %}xxxxxxxxxx{% end %}", "bytes"),
        ("{% local a = 'xxxxxxxxxx' %}{% for i = 1, 9 do %}{% local a = a .. a .. a .. a .. a .. a .. a .. a %}{% end %}", ""),
        ("{% for i = 1, 2, 0 do %}{% end %}", "steps of zero"),
        ("{{1 + nothing}}", "arithmetic on a nil"),
        ("{{1 < 'a'}}", "compared with"),
        ("{{1 / 0}}", ""),
    ] {
        let out = rendered(source);
        assert!(if part.is_empty() { !out.contains("error") } else { out.contains(part) }, "{source}: {out}");
    }
    let compile = |source: String| Template::compile(&source).map(drop).unwrap_err();
    assert!(compile("x".repeat(300_000)).contains("longer"));
    assert!(compile(format!("{{{{{}1{}}}}}", "(".repeat(100), ")".repeat(100))).contains("deeper"));
    assert!(compile(format!("{{{{{}1}}}}", "not ".repeat(100))).contains("deeper"));
    assert!(compile(format!("{{{{1{}}}}}", " + 1".repeat(100))).contains("in a row"));
    assert!(compile(format!("{{{{a{}}}}}", ".b".repeat(100))).contains("steps"));
    assert!(compile("{% if a then %}".repeat(40)).contains("nested deeper"));
    assert!(compile("{{a}}".repeat(30_000)).contains("parts"));
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused_and_renders_or_fails(
        source in "(\\{\\{|\\}\\}|\\{%|%\\}|\\{\\*|\\*\\}|if|then|end|for|do|in|pairs|[a-c. ()\\[\\]'\"1=<+-]){0,30}"
    ) {
        if let Ok(template) = Template::compile(&source) {
            let _ = template.render(&scene(&json!({"a": {"b": [1]}})));
        }
    }
}
