[(body) (block) (layer) (list) (dims) (call)] @indent.begin
["}" "]" ")"] @indent.branch
(comment) @indent.auto
