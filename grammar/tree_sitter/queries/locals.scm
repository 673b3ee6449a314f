[(source_file) (block)] @local.scope
(let (identifier) @local.definition.constant)
(param (identifier) @local.definition.constant)
(block . "block" . (identifier) @local.definition.function)
(layer . "layer" . (identifier) @local.definition.type)
(words (identifier) @local.definition.parameter)
(tensor (identifier) @local.definition.var)
(name (dotted . (identifier) @local.reference))
