"""SGLang names of function calling, for the main process of a server; importing them imports much of SGLang."""

from sglang.srt.function_call.json_array_parser import JsonArrayParser
from sglang.srt.function_call.utils import get_json_schema_constraint

__all__ = ["JsonArrayParser", "get_json_schema_constraint"]
