"""Conversations and runs: who speaks on which lane, and when.

The names below are imported when they are first used, so that `warmline --help` need not wait for all of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.admission.shell import Admission
    from scheduler.admission.tenant import Budget, Tenant
    from scheduler.admission.ticket import Ticket
    from scheduler.admission.waits import AdmissionStats
    from scheduler.agent import Agent
    from scheduler.attempts import Restarted
    from scheduler.chain import Past
    from scheduler.compaction import Compaction
    from scheduler.conversation import Conversation
    from scheduler.errors import (
        AdmissionQueueFull,
        AgentNotFound,
        BudgetExceeded,
        CallsUnanswered,
        ConversationBusy,
        DeadlineExceeded,
        FleetHalted,
        InputInvalid,
        OutputFileError,
        OutputInvalid,
        RetryBudgetExceeded,
        RunIncomplete,
        SchedulerError,
        SteerRefused,
        TaskError,
        ToolDefinitionError,
        UnsupportedOutput,
    )
    from scheduler.fleet.entry import run_fleet, run_fleet_async
    from scheduler.fleet.fleet import Fleet, FleetCounts
    from scheduler.fleet.report import FleetReport
    from scheduler.fleet.results import RunError, TaskResult
    from scheduler.fleet.tasks import Task
    from scheduler.run import Run, RunResult, run_agent
    from scheduler.scheduler import Scheduler, open_scheduler
    from scheduler.settings import SchedulerSettings
    from scheduler.stats import ModelStats, SchedulerStats
    from scheduler.stream import RunStream
    from scheduler.tools import Tool, ToolContext, ToolFinished, ToolStarted, tool
    from scheduler.turns import FunctionCall, Placement, Steered, Turn, TurnRequest, Usage
    from scheduler.worker.client import enqueue, enqueue_async, follow_job, job_result, job_result_async
    from scheduler.worker.engines import open_queue
    from scheduler.worker.errors import (
        JobConflict,
        JobFailed,
        JobNotFound,
        QueueError,
        QueueRefused,
        QueueUnavailable,
        WrongState,
    )
    from scheduler.worker.job import Job
    from scheduler.worker.queue import QueueSettings
    from scheduler.worker.settings import WorkerSettings
    from scheduler.worker.worker import Worker

_HOMES = {
    "scheduler.admission.shell": "Admission",
    "scheduler.admission.tenant": "Budget Tenant",
    "scheduler.admission.ticket": "Ticket",
    "scheduler.admission.waits": "AdmissionStats",
    "scheduler.agent": "Agent",
    "scheduler.chain": "Past",
    "scheduler.compaction": "Compaction",
    "scheduler.attempts": "Restarted",
    "scheduler.conversation": "Conversation",
    "scheduler.errors": "AdmissionQueueFull AgentNotFound BudgetExceeded CallsUnanswered ConversationBusy "
    "DeadlineExceeded FleetHalted InputInvalid OutputFileError OutputInvalid RetryBudgetExceeded RunIncomplete "
    "SchedulerError SteerRefused TaskError ToolDefinitionError UnsupportedOutput",
    "scheduler.fleet.entry": "run_fleet run_fleet_async",
    "scheduler.fleet.fleet": "Fleet FleetCounts",
    "scheduler.fleet.report": "FleetReport",
    "scheduler.fleet.results": "RunError TaskResult",
    "scheduler.fleet.tasks": "Task",
    "scheduler.run": "Run RunResult run_agent",
    "scheduler.scheduler": "Scheduler open_scheduler",
    "scheduler.settings": "SchedulerSettings",
    "scheduler.stats": "ModelStats SchedulerStats",
    "scheduler.stream": "RunStream",
    "scheduler.tools": "Tool ToolContext ToolFinished ToolStarted tool",
    "scheduler.turns": "FunctionCall Placement Steered Turn TurnRequest Usage",
    "scheduler.worker.client": "enqueue enqueue_async follow_job job_result job_result_async",
    "scheduler.worker.engines": "open_queue",
    "scheduler.worker.errors": "JobConflict JobFailed JobNotFound QueueError QueueRefused QueueUnavailable "
    "WrongState",
    "scheduler.worker.job": "Job",
    "scheduler.worker.queue": "QueueSettings",
    "scheduler.worker.settings": "WorkerSettings",
    "scheduler.worker.worker": "Worker",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Admission",
    "AdmissionQueueFull",
    "AdmissionStats",
    "Agent",
    "AgentNotFound",
    "Budget",
    "BudgetExceeded",
    "CallsUnanswered",
    "Compaction",
    "Conversation",
    "ConversationBusy",
    "DeadlineExceeded",
    "Fleet",
    "FleetCounts",
    "FleetHalted",
    "FleetReport",
    "FunctionCall",
    "InputInvalid",
    "Job",
    "JobConflict",
    "JobFailed",
    "JobNotFound",
    "ModelStats",
    "OutputFileError",
    "OutputInvalid",
    "Past",
    "Placement",
    "QueueError",
    "QueueRefused",
    "QueueSettings",
    "QueueUnavailable",
    "Restarted",
    "RetryBudgetExceeded",
    "Run",
    "RunError",
    "RunIncomplete",
    "RunResult",
    "RunStream",
    "Scheduler",
    "SchedulerError",
    "SchedulerSettings",
    "SchedulerStats",
    "SteerRefused",
    "Steered",
    "Task",
    "TaskError",
    "TaskResult",
    "Tenant",
    "Ticket",
    "Tool",
    "ToolContext",
    "ToolDefinitionError",
    "ToolFinished",
    "ToolStarted",
    "Turn",
    "TurnRequest",
    "UnsupportedOutput",
    "Usage",
    "Worker",
    "WorkerSettings",
    "WrongState",
    "enqueue",
    "enqueue_async",
    "follow_job",
    "job_result",
    "job_result_async",
    "open_queue",
    "open_scheduler",
    "run_agent",
    "run_fleet",
    "run_fleet_async",
    "tool",
]


if not TYPE_CHECKING:  # a type checker reads the imports above, and complains of names that are not there

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'scheduler' has no attribute {name!r}")
        value: object = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
