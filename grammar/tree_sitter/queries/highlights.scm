; Later patterns win, and the narrower ones are later.
(identifier) @variable
(comment) @comment
(string) @string
(digits) @number
(unit) @type.builtin
"%" @type.builtin
[(true) (false)] @boolean

(section (identifier) @keyword.type)
(label (identifier) @module)
(joining (identifier) @module)
(phase (identifier) @module)
(directive . (identifier) @keyword.type)
(directive (identifier) @property "=")
(assign (identifier) @property)
(keyword (identifier) @variable.parameter)
(let (identifier) @constant)
(param (identifier) @constant)
(layer . "layer" . (identifier) @type)
(block . "block" . (identifier) @function)
(words (identifier) @variable.parameter)
(call (dotted (identifier) @function.call .))
(tensor (identifier) @variable)

["import" "let" "param" "require" "block" "layer" "moe" "link" "to" "from" "in"] @keyword
"return" @keyword.return
[(compare) "=" "+" "-" "*" "/" ".." "+-"] @operator
["{" "}" "[" "]" "(" ")"] @punctuation.bracket
["," "."] @punctuation.delimiter
