"""YAML without surprises: words stay words, every value knows its line, and no text ends in a traceback."""

import pytest

from clever.document import parse, read, scalar
from clever.errors import RequestError


def refusal(text: str) -> str:
    with pytest.raises(RequestError) as refused:
        parse(text, "x.yaml")
    (message,) = refused.value.messages
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-0.0", -0.0), ("+3", 3), ("007", 7),
        ("1_000", "1_000"), ("0x10", "0x10"), ("no", "no"), ("on", "on"), ("yes", "yes"), ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None), (".inf", ".inf"), ("nan", "nan"),
        ("1e", "1e"), ("-", "-"), ("caug_plus", "caug_plus"),
    ],
)  # fmt: skip
def test_an_unquoted_word_is_a_number_a_constant_or_itself(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_a_number_of_thousands_of_digits_is_no_reason_to_fail():
    assert scalar("9" * 5000) == float("inf")


def test_quotes_make_a_word_of_anything():
    value = parse("a: '1e-3'\nb: \"true\"\nc: ''\nd: |\n  12\n", "x").value
    assert value == {"a": "1e-3", "b": "true", "c": "", "d": "12\n"}


def test_every_value_knows_its_line_and_column():
    document = parse("a:\n  b: [x, {c: 1}]\n", "x.yaml")
    assert document.where(("a",)) == "x.yaml:1:1"
    assert document.where(("a", "b")) == "x.yaml:2:3"
    assert document.where(("a", "b", 0)) == "x.yaml:2:7"
    assert document.where(("a", "b", 1, "c")) == "x.yaml:2:11"


def test_what_the_file_does_not_have_is_placed_at_the_innermost_part_that_it_has():
    document = parse("a:\n  b: 1\n", "x.yaml")
    assert document.where(("a", "b", "missing", 3)) == "x.yaml:2:3"
    assert document.where(("nowhere",)) == "x.yaml:1:1"


def test_all_keys_that_are_given_twice_are_named_with_the_line_of_the_second():
    with pytest.raises(RequestError) as refused:
        parse("a: 1\nb: {c: 1, c: 2}\na: 2\n", "x.yaml")
    assert refused.value.messages == ("x.yaml:2:11: `c` is given twice", "x.yaml:3:1: `a` is given twice")


def test_keys_are_words_even_where_they_look_like_numbers():
    assert parse("1: a\ntrue: b\n1.5: c\n", "x").value == {"1": "a", "true": "b", "1.5": "c"}


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_has_no_fields(text):
    assert not parse(text, "x.yaml").value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\t- 1\n", "x.yaml:2:1: not valid YAML: while scanning for the next token, found character '\\t'"),
        ("a: {b: 1\nc: 2\n", "x.yaml:2:2: not valid YAML: while parsing a flow mapping, expected ',' or '}'"),
        ("a: 'b\n", "x.yaml:2:1: not valid YAML: while scanning a quoted scalar, found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: not valid YAML: expected a single document in the stream"),
        ("a: b\0c\n", "x.yaml:1:5: not valid YAML: special characters are not allowed"),
        ("ok: 1\nä\x07\n", "x.yaml:2:2: not valid YAML: special characters are not allowed"),
        ("a: [1]: 2\n", "x.yaml:1:7: not valid YAML: "),
        ("? [a]\n: b\n", "x.yaml:1:3: the name of a field must be a word"),
        ("? {a: 1}\n: b\n", "x.yaml:1:3: the name of a field must be a word"),
    ],
)
def test_a_syntax_error_is_one_sentence_with_its_place(text, message):
    found = refusal(text)
    assert found.startswith(message)
    assert "\n" not in found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: &x [1]\nb: *x\n", "2:4"),
        ("a: &x [*x]\n", "1:8"),  # holds itself
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "3:7"),
        ("a: &a [1]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "2:8"),  # would double with every line
    ],
)
def test_aliases_are_refused_where_they_stand(text, place):
    assert refusal(text) == f"x.yaml:{place}: not valid YAML: aliases are not supported; write the value out"


def test_an_inline_merge_is_an_ordinary_key_that_no_model_knows():
    assert parse("<<: {a: 1}\n", "x").value == {"<<": {"a": 1}}


@pytest.mark.parametrize("text", ["a: !!int '3'\n", "a: !!python/object/apply:os.system [x]\n", "a: !mine {b: 1}\n"])
def test_tags_are_refused_where_they_stand(text):
    assert refusal(text) == "x.yaml:1:4: not valid YAML: tags are not supported"


@pytest.mark.parametrize("text", ["[" * 500, "a: " + "{b: " * 500, "- " * 500])
def test_a_file_that_is_nested_without_end_is_refused(text):
    assert refusal(text) == "x.yaml: not valid YAML: it is nested too deeply"


def test_text_in_another_encoding_is_refused_with_its_place(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes("a: 1\nb: ä".encode() + "ü\n".encode("latin-1"))
    with pytest.raises(RequestError) as refused:
        read(path)
    assert refused.value.messages == (f"{path}:2:5: cannot be read: it is not UTF-8 text",)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x]\r\n")
    assert read(path).value == {"a": 1, "b": ["x"]}


def test_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"none\.yaml: cannot be read: No such file or directory"):
        read(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        read(tmp_path)
