"""Tools: Python functions that a model may call."""

from scheduler.tools.context import ToolContext
from scheduler.tools.definition import Tool, tool
from scheduler.tools.events import RunEvent, ToolFinished, ToolStarted
from scheduler.tools.toolbox import OnRunEvent, Toolbox, ToolResult, thread_limiter

__all__ = [
    "OnRunEvent",
    "RunEvent",
    "Tool",
    "ToolContext",
    "ToolFinished",
    "ToolResult",
    "ToolStarted",
    "Toolbox",
    "thread_limiter",
    "tool",
]
