[(body) (block) (layer) (list)] @fold
