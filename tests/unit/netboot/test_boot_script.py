"""What iPXE is told, read the way iPXE reads it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.agent.world import MAC, boot

from rackwright.netboot.decision import AskAgain, Introduce, LocalDisk, Ramdisk, Why
from rackwright.netboot.script import RamdiskSettings, entry_script, kernel_arguments, script

SETTINGS = RamdiskSettings("http://10.0.0.1:8080")
COMMANDS = {"echo", "kernel", "initrd", "boot", "imgfree", "sleep", "chain", "exit", "goto", "#!ipxe"}


def commands(text: str) -> list[list[str]]:
    """Each command of a script with its arguments: split at white space and at `||`, `&&`, `;`, cut at `#`."""
    read: list[list[str]] = []
    for line in text.replace("#!ipxe", "!ipxe", 1).split("\n"):
        if line.startswith(":"):
            continue
        command: list[str] = []
        for token in line.split():
            if token.startswith("#"):
                break
            if token in {"||", "&&", ";"}:
                read.append(command)
                command = []
            else:
                command.append(token)
        read.append(command)
    return [command for command in read if command][1:]


def test_the_ramdisks_script() -> None:
    assert script(Ramdisk(boot(), MAC), SETTINGS) == (
        "#!ipxe\n"
        "echo Rackwright: machine rack-a/node-07, Commission, attempt 1\n"
        "kernel --name vmlinuz http://10.0.0.1:8080/boot/files/vmlinuz initrd=initrd console=tty0"
        " console=ttyS0,115200 BOOTIF=01-52-54-00-00-00-07 ipa-api-url=http://10.0.0.1:8080"
        " ipa-inspection-callback-url=http://10.0.0.1:8080/v1/continue_inspection"
        " ipa-inspection-collectors=default,logs || goto again\n"
        "initrd --name initrd http://10.0.0.1:8080/boot/files/initrd || goto again\n"
        "boot || goto again\n"
        ":again\n"
        "echo Rackwright: the ramdisk could not be loaded, asking again in 10 s\n"
        "imgfree\n"
        "sleep 10\n"
        "chain --replace http://10.0.0.1:8080/boot/ipxe?mac=52-54-00-00-00-07 || goto again\n"
    )


def test_the_local_disks_script_tells_the_firmware_to_go_on() -> None:
    """`exit` alone leaves UEFI firmware in its setup menu: it takes the boot for a success."""
    assert script(LocalDisk(Why.UNKNOWN_MACHINE), SETTINGS) == (
        "#!ipxe\necho Rackwright: booting the local disk, UnknownMachine\nexit 1\n"
    )


def test_the_script_of_a_machine_that_nobody_knows() -> None:
    first, kernel, *others = script(Introduce(MAC), SETTINGS).splitlines()[1:]
    assert first == "echo Rackwright: a machine nobody declared, inspecting it"
    assert kernel == (
        "kernel --name vmlinuz http://10.0.0.1:8080/boot/files/vmlinuz initrd=initrd console=tty0"
        " console=ttyS0,115200 BOOTIF=01-52-54-00-00-00-07 rackwright.enlist=1"
        " ipa-inspection-callback-url=http://10.0.0.1:8080/v1/continue_inspection"
        " ipa-inspection-collectors=default || goto again"
    )
    ours = script(Ramdisk(boot(), MAC), SETTINGS).splitlines()[3:-1]
    assert others[: len(ours)] == ours


def test_a_machine_that_nobody_knows_is_told_of_no_api_to_ask_who_it_is() -> None:
    settings = RamdiskSettings("http://10.0.0.1", insecure=True, arguments=("quiet",))
    arguments = kernel_arguments(Introduce(MAC), settings)
    assert not any(argument.startswith("ipa-api-url") for argument in arguments)
    assert arguments[-2:] == ["ipa-insecure=1", "quiet"]


def test_no_machine_of_ours_is_told_to_switch_itself_off() -> None:
    assert not any("enlist" in argument for argument in kernel_arguments(Ramdisk(boot(), MAC), SETTINGS))


def test_asking_again_counts() -> None:
    asked = ["chain", "--replace", "http://10.0.0.1:8080/boot/ipxe?mac=52-54-00-00-00-07&asked=3"]
    assert asked in commands(script(AskAgain(MAC, 3), SETTINGS))


def run_alone(text: str, *, longest: int = 3600) -> tuple[int, str | None]:
    """Run a script as iPXE does, where nothing can be loaded: for how many seconds, and what it exits with.

    None: it ends never, or by a command that failed.
    """
    lines, at, slept, asked, failed = text.splitlines(), 1, 0, 0, False
    while at < len(lines) and slept < longest and not failed:
        words, at, after = lines[at].split(), at + 1, ""
        while words and not words[0].startswith(":"):
            cut = next((n for n, word in enumerate(words) if word in {"||", "&&"}), len(words))
            command, (before, after), words = words[:cut], (after, "".join(words[cut : cut + 1])), words[cut + 1 :]
            if (before == "||" and not failed) or (before == "&&" and failed):
                continue
            match command:
                case ["sleep", seconds]:
                    slept += int(seconds)
                case ["goto", label]:
                    at, words, failed = lines.index(f":{label}"), [], False
                case ["exit", code]:
                    return slept, code
                case ["set", "asked:int32", number]:
                    asked = int(number)
                case ["inc", "asked"]:
                    asked += 1
                case ["iseq", "${asked}", number]:
                    failed = asked != int(number)
                case [name, *_]:
                    failed = name in {"chain", "kernel", "initrd", "boot"}
        failed = failed and after != "||"
    return slept, None


@pytest.mark.parametrize(
    "text",
    [
        entry_script("http://10.0.0.1:8080"),
        script(AskAgain(MAC, 1), SETTINGS),
        script(Introduce(MAC), SETTINGS),
    ],
    ids=["the first", "told to ask again", "told to introduce itself"],
)
def test_where_no_operator_answers_any_more_a_machine_boots_its_disk_after_two_minutes(text: str) -> None:
    slept, code = run_alone(text)
    assert code == "1"
    assert 110 <= slept <= 130


def test_a_machine_that_is_being_booted_asks_until_its_attempt_ends() -> None:
    slept, code = run_alone(script(Ramdisk(boot(), MAC), SETTINGS))
    assert (slept, code) == (3600, None)


def test_only_a_boot_that_wants_inventory_mentions_inspection() -> None:
    """IPA inspects as soon as it is given either a callback or collectors."""
    arguments = kernel_arguments(Ramdisk(boot(wants_inventory=False), MAC), SETTINGS)
    assert not any("inspection" in argument for argument in arguments)


def test_settings_reach_the_kernel() -> None:
    settings = RamdiskSettings(
        "http://[fd00::1]:8080",
        kernel="k-6.1",
        initrd="i-6.1",
        consoles=("ttyS1",),
        insecure=True,
        arguments=("quiet",),
    )
    arguments = kernel_arguments(Ramdisk(boot(), MAC), settings)
    assert arguments[:2] == ["initrd=i-6.1", "console=ttyS1"]
    assert arguments[-2:] == ["ipa-insecure=1", "quiet"]
    assert "kernel --name k-6.1 http://[fd00::1]:8080/boot/files/k-6.1 " in script(Ramdisk(boot(), MAC), settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "ftp://10.0.0.1"},
        {"base_url": "https://10.0.0.1"},
        {"base_url": "http://10.0.0.1/path"},
        {"base_url": "http://10.0.0.1 || shell"},
        {"base_url": "http://${next-server}"},
        {"base_url": "http://10.0.0.1\nshell"},
        {"kernel": "../vmlinuz"},
        {"kernel": "vmlinuz;shell"},
        {"initrd": ""},
        {"initrd": "${initrd}"},
        {"consoles": ("ttyS0 init=/bin/sh",)},
        {"arguments": ("||",)},
        {"arguments": ("#",)},
        {"arguments": ("a${b}",)},
        {"arguments": ("quiet\n",)},
    ],
)
def test_settings_that_ipxe_could_misread_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|may hold"):
        RamdiskSettings(**{"base_url": "http://10.0.0.1", **settings})


@pytest.mark.parametrize("mac", ["", "52:54:00:00:00:07\nshell", "${net0/mac}"])
def test_what_is_no_mac_address_gets_no_script(mac: str) -> None:
    with pytest.raises(ValueError, match="no MAC address"):
        script(Ramdisk(boot(), mac), SETTINGS)


@given(st.text(), st.text(), st.text(), st.booleans())
def test_nothing_that_a_machine_is_called_becomes_a_command(
    namespace: str, name: str, operation: str, wants_inventory: bool
) -> None:
    machine = boot(namespace=namespace, name=name, operation=operation, wants_inventory=wants_inventory)
    text = script(Ramdisk(machine, MAC), SETTINGS)
    plain = script(Ramdisk(boot(wants_inventory=wants_inventory), MAC), SETTINGS)
    assert text.isascii()
    assert "$" not in text
    assert "\\" not in text
    read, expected = commands(text), commands(plain)
    assert read[0][0] == "echo"
    assert read[1:] == expected[1:]
    assert {command[0] for command in read} <= COMMANDS


@given(st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_a_setting_is_either_refused_or_one_word(value: str) -> None:
    try:
        settings = RamdiskSettings("http://10.0.0.1", arguments=(value,))
    except ValueError:
        return
    kernel = commands(script(Ramdisk(boot(), MAC), settings))[1]
    assert kernel[0] == "kernel"
    assert kernel[-1] == value
