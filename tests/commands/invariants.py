"""The invariants of every mechanism together, as far as a world in memory shows them."""

from tests.commands.world import World


def check(world: World) -> None:
    world.check()
