"""SGLang names that the main process of a running server uses; importing them imports most of SGLang."""

from sglang.srt.managers import schedule_batch
from sglang.srt.parser.jinja_template_utils import process_content_for_template_format

__all__ = ["process_content_for_template_format", "schedule_batch"]
