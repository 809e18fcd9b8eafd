"""Ask an ensemble one question, with a member that stalls and one that fails."""

from fusion import Agent, AgentPool, Ensemble, Limits, Spec


def member(name: str, reply: str, **engine: float) -> Agent:
    """Return an agent of the scripted engine; real ones name hf or openai, and a model."""
    return Agent(name=name, engine=Spec("echo", {"replies": [reply], **engine}), mode="generate")


pool = AgentPool(
    (
        member("fast", "A"),
        member("sure", "The answer is A."),
        member("wrong", "B"),
        member("broken", "A", fail_share=1.0),
        member("third", "A"),
        member("stalled", "B", delay_s=30.0),
    )
)
with Ensemble(pool, "all_agents", "vote") as ensemble:
    answer = ensemble.answer("Which is a fruit?", options=["pear", "spade"], limits=Limits(quorum=3, deadline_s=10))
print(f"{answer.label}. {answer.text}: {answer.agreement:.0%} of the answers agree, {answer.seconds:.1f} s")
for person in answer.members:
    print(f"  {person.agent:8} {person.status:11} {person.answer or '-':6} {person.detail}")
assert answer.seconds < 10, "a decided vote does not wait for the stalled member"
assert (ensemble.replay(answer.table).decision.answers == answer.decision.answers).all()
