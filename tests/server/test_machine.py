"""What tests may rely on when several machines run at once."""

from tests.support.machine import NEEDS_MACHINE, Machine

pytestmark = NEEDS_MACHINE
UNIT = "[Service]\nExecStart=/usr/bin/sleep infinity\n"


def test_a_unit_that_is_killed_lives_on_in_another_machine() -> None:
    with Machine() as one, Machine() as other:
        for machine in (one, other):
            machine.write("/run/systemd/system/same.service", UNIT)
            machine.run("systemctl", "start", "same")
        one.run("systemctl", "kill", "--signal=KILL", "same")
        assert other.run("systemctl", "is-active", "same") == "active\n"
