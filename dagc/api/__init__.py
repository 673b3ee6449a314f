"""The public face: compile a spec, ask its plan for reports, pictures and data, and run the commands as functions."""

from .face import Plan as Plan
from .face import Svg as Svg
from .face import compile as compile
from .face import compile_text as compile_text
from .face import read_plan as read_plan
