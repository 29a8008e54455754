"""What a search keeps of the teacher's knowledge, and where."""

from __future__ import annotations

from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner.progress import Reporter
from optuna_kd.training.knowledge_plan import KnowledgeChoices, KnowledgePlan, plan_knowledge
from optuna_kd.training.offline import TeacherKnowledge, prepare_knowledge
from optuna_kd.training.proxy import proxy_images
from optuna_kd.training.task import ImageClassification


class Storing(KnowledgeChoices):
    """How the teacher's knowledge is kept during a search: the same choices, for the images that its proxies see.

    Not by the number of epochs: a study that gets more trials later has to go on with the views it began with.
    """

    def plan(self, task: ImageClassification, proxy: ProxyConfig) -> KnowledgePlan:
        """Decide, without asking the teacher."""
        return plan_knowledge(task, self, proxy_images(task, proxy)[0])

    def prepare(self, task: ImageClassification, proxy: ProxyConfig, say: Reporter) -> TeacherKnowledge | None:
        """Ask the teacher, after saying what is going to be stored; None shows new views in every epoch."""
        images = proxy_images(task, proxy)[0]
        return prepare_knowledge(task, self, images, say=lambda line: say.note(f"Knowledge  {line}"))
