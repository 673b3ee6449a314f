// The .moe language for tree-sitter. Nodes have the names of the rules of grammar/moe.lark, which is what dagc reads;
// tests/test_tree_sitter.py holds one against the other.

const RESERVED = ["import", "let", "param", "require", "in", "from", "true", "false", "block", "layer", "return"];

// Newlines end statements, except inside ( ) and [ ]. So every rule of expressions is there twice, and gives the same nodes: outside
// brackets, and (`_inner_...`) inside them, where lines may end after every token.
const OUTER = { prefix: "", token: (_, token) => token };
const INNER = { prefix: "_inner_", token: ($, token) => seq(token, optional($._lines)) };

// The head of a statement may be a word that elsewhere in its place is a keyword.
const head = ($) => choice($.identifier, alias("moe", $.identifier), alias("link", $.identifier));

const separated = (first, separator, next = first) => seq(first, repeat(seq(separator, next)));

function expressions({ prefix, token }) {
  const rule = ($, name) => (prefix ? alias($[`${prefix}${name}`], $[name]) : $[name]);
  const hidden = ($, name) => $[`${prefix || "_"}${name}`];
  const bracketed = ($, open, content, close) => seq(open, optional($._lines), content, close);
  const identifier = ($) => token($, $.identifier);
  const string = ($) => rule($, "string");
  const binary = ($, left, operator, right) => seq(hidden($, left), token($, operator), hidden($, right));

  return {
    [`${prefix || "_"}value`]: ($) => choice(hidden($, "expr"), string($)),
    [`${prefix || "_"}expr`]: ($) => choice(hidden($, "sum"), rule($, "range")),
    [`${prefix || "_"}sum`]: ($) => choice(hidden($, "product"), rule($, "add"), rule($, "subtract")),
    [`${prefix || "_"}product`]: ($) => choice(hidden($, "unary"), rule($, "multiply"), rule($, "divide")),
    [`${prefix || "_"}unary`]: ($) => choice(hidden($, "atom"), rule($, "negate")),
    [`${prefix || "_"}atom`]: ($) =>
      choice(
        rule($, "number"),
        rule($, "true"),
        rule($, "false"),
        rule($, "name"),
        rule($, "indexed"),
        rule($, "call"),
        token($, bracketed($, "(", $._inner_expr, ")")),
        rule($, "list"),
      ),
    [`${prefix}range`]: ($) => binary($, "sum", "..", "sum"),
    [`${prefix}add`]: ($) => binary($, "sum", "+", "product"),
    [`${prefix}subtract`]: ($) => binary($, "sum", "-", "product"),
    [`${prefix}multiply`]: ($) => binary($, "product", "*", "unary"),
    [`${prefix}divide`]: ($) => binary($, "product", "/", "unary"),
    [`${prefix}negate`]: ($) => seq(token($, "-"), hidden($, "unary")),
    [`${prefix}number`]: ($) => token($, $.quantity),
    [`${prefix}true`]: ($) => token($, "true"),
    [`${prefix}false`]: ($) => token($, "false"),
    [`${prefix}string`]: ($) => token($, $._text),
    [`${prefix}name`]: ($) => rule($, "dotted"),
    [`${prefix}dotted`]: ($) => separated(identifier($), token($, ".")),
    [`${prefix}indexed`]: ($) => seq(identifier($), rule($, "dims")),
    [`${prefix}dims`]: ($) =>
      token($, bracketed($, "[", separated(INNER.token($, $.identifier), INNER.token($, ",")), "]")),
    [`${prefix}call`]: ($) =>
      seq(
        rule($, "dotted"),
        token($, bracketed($, "(", optional(separated($._argument, INNER.token($, ","))), ")")),
      ),
    [`${prefix}list`]: ($) =>
      token($, bracketed($, "[", optional(separated($._inner_value, INNER.token($, ","))), "]")),
  };
}

module.exports = grammar({
  name: "moe",

  extras: ($) => [/[ \t\r\f]/, $.comment],
  word: ($) => $.identifier,
  reserved: {
    global: () => RESERVED,
    unit: () => [...RESERVED, "moe"],
  },

  rules: {
    source_file: ($) => seq(optional($._ends), optional($._statements)),

    // A comma ends a statement as a line does.
    _end: () => choice("\n", ","),
    _ends: ($) => repeat1($._end),
    _lines: () => repeat1("\n"),
    _statements: ($) => seq(separated($._statement, $._ends), optional($._ends)),

    _statement: ($) =>
      choice(
        $.version,
        $.import,
        $.let,
        $.param,
        $.require,
        $.block,
        $.layer,
        $.section,
        $.joining,
        $.assign,
        $.bare,
        $.directive,
      ),

    version: ($) => seq("moe", $.quantity),
    import: ($) => seq("import", $.string),
    let: ($) => seq("let", $.identifier, "=", $._value),
    param: ($) => seq("param", $.identifier, "=", $._expr, optional(seq("in", $._expr))),
    require: ($) =>
      seq("require", optional($.string), $._expr, $.compare, $._expr, optional(seq("+-", $._expr))),
    compare: () => choice("<=", ">=", "==", "<", ">", "~"),

    assign: ($) => seq(head($), "=", $._value),
    bare: ($) => head($),
    directive: ($) => seq(head($), $.identifier, "=", $._expr),
    section: ($) =>
      seq(head($), optional($.label), choice(seq(optional($.from), $.body), $.from)),
    label: ($) => choice($.identifier, $.string),
    from: ($) => seq("from", $.string),
    joining: ($) => seq("link", $.identifier, "to", $.identifier, $.body),
    body: ($) => seq("{", optional($._ends), optional($._statements), "}"),

    block: ($) =>
      seq(
        "block",
        $.identifier,
        "(",
        optional($._lines),
        optional($.words),
        ")",
        optional($.phase),
        "{",
        optional($._ends),
        optional($._block_statements),
        "}",
      ),
    words: ($) => separated(INNER.token($, $.identifier), INNER.token($, ",")),
    phase: ($) => seq("in", $.identifier),
    _block_statements: ($) => seq(separated($._block_statement, $._ends), optional($._ends)),
    _block_statement: ($) => choice($.let, $.tensor, $.return),
    tensor: ($) => seq($.identifier, optional($.dims), "=", $._expr),
    return: ($) => seq("return", $._expr),

    layer: ($) =>
      seq("layer", $.identifier, "{", optional($._ends), separated($.dotted, $._ends), optional($._ends), "}"),

    ...expressions(OUTER),
    ...expressions(INNER),

    _argument: ($) => choice($._inner_expr, alias($._inner_string, $.string), $.keyword),
    keyword: ($) => seq(INNER.token($, $.identifier), INNER.token($, "="), $._inner_value),

    quantity: ($) => seq($.digits, optional(choice("%", $._money, $._measure))),
    digits: () => /[0-9][0-9_]*(\.[0-9][0-9_]*)?([eE][+-]?[0-9]+)?/,
    _money: ($) => alias(/\$(\/[A-Za-z]+)?/, $.unit),
    _measure: ($) =>
      seq(
        alias(reserved("unit", $.identifier), $.unit),
        optional(alias(token.immediate(/\/(s|ms|us|min|tok)/), $.unit)),
      ),

    _text: () => /"[^"\n]*"/,
    identifier: () => /[A-Za-z_][A-Za-z0-9_]*/,
    comment: () => /#[^\n]*/,
  },
});
