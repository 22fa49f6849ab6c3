"""BareMetalMachine: one physical server, as declared (`spec`) and as observed (`status`)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from rackwright.api.conditions import AnyCondition, Condition
from rackwright.api.fields import (
    CONFIG,
    BMCAddress,
    Checksum,
    Duration,
    GateType,
    Hostname,
    MACAddress,
    Model,
    ObjectName,
    Owner,
    SSHKey,
    Time,
    Trigger,
    rules,
)


class Phase(StrEnum):
    """Where a machine is in its life-cycle."""

    NEW = "New"
    COMMISSIONING = "Commissioning"
    READY = "Ready"
    ALLOCATED = "Allocated"
    DEPLOYING = "Deploying"
    DEPLOYED = "Deployed"
    RELEASING = "Releasing"
    RESCUE = "Rescue"
    BROKEN = "Broken"
    FAILED = "Failed"


class Power(StrEnum):
    """The machine's power, as its BMC reports it."""

    ON = "On"
    OFF = "Off"
    UNKNOWN = "Unknown"


class BootMode(StrEnum):
    """The firmware's way of booting."""

    UEFI = "UEFI"
    LEGACY = "Legacy"


class Architecture(StrEnum):
    """A processor architecture, by Debian's and Go's names."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class EraseMode(StrEnum):
    """How much of the disks a release erases."""

    FULL = "Full"
    QUICK = "Quick"
    NONE = "None"


class SecretRef(Model):
    """A Secret in the machine's own namespace."""

    name: ObjectName = Field(description="Name of the Secret.")


class UserDataSecretRef(SecretRef):
    """A key of a Secret in the machine's own namespace."""

    key: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 253})] = Field(
        default="userData", description="Key within the Secret."
    )


class BMC(Model):
    """How to reach the baseboard management controller."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(self.insecureSkipTLSVerify && has(self.caSecretRef))",
                "caSecretRef has no effect together with insecureSkipTLSVerify: keep one of the two",
            ),
            (
                ("!has(self.caSecretRef) && !self.insecureSkipTLSVerify || self.address.matches('^[a-z]+[+]https:')"),
                (
                    "caSecretRef and insecureSkipTLSVerify have no effect without TLS: remove them, or use an address "
                    "that begins with redfish+https:// or webhook+https://"
                ),
            ),
        )
    )

    address: BMCAddress = Field(
        description=(
            "Where the BMC answers and which system it is: redfish+https://10.0.0.7/redfish/v1/Systems/1, or "
            "ipmi://10.0.0.7 (port 623); a webhook that switches the machine: "
            "webhook+https://power.example.org/outlets/7; or manual:// where a person does. simulated://fast and "
            "simulated://slow?boot=90s&fail=0.02 are machines in the memory of an operator that was started with "
            "--allow-simulated, for trying things out."
        )
    )
    credentials_secret_ref: SecretRef | None = Field(
        default=None,
        description=(
            "Secret with the keys username and password; for a webhook, the name of a key and the key that calls are "
            "signed with."
        ),
    )
    ca_secret_ref: SecretRef | None = Field(
        default=None, description="Secret whose key ca.crt holds the PEM certificates that the BMC is verified against."
    )
    insecure_skip_tls_verify: bool = Field(
        default=False,
        description="Talk to a BMC whose certificate can't be verified. Anybody on its network can pose as it.",
    )


class Commissioning(Model):
    """How the machine is checked before it joins the pool."""

    trigger: Trigger = Field(
        default="",
        description=(
            "Any new value recommissions; what is installed is kept. A machine that is Allocated or Deployed isn't "
            "interrupted: it is recommissioned once it is Ready again or Failed."
        ),
    )
    timeout: Duration = Field(default=timedelta(minutes=30), description="How long one attempt may take.")
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="Attempts before the machine is Failed."
    )


class Allocation(Model):
    """Whose the machine is."""

    owner: Owner = Field(description="Who the machine is reserved for. Can't be changed while set.")


class Deployment(Model):
    """What runs on the machine."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(self.existing && has(self.image))",
                "existing and image exclude each other: existing adopts what already runs, image would install anew",
            ),
            (
                "self.existing || has(self.image)",
                "image is missing: name an OperatingSystemImage, or set existing: true to adopt a machine that runs",
            ),
        )
    )

    image: ObjectName | None = Field(default=None, description="Name of the OperatingSystemImage to install.")
    hostname: Hostname | None = Field(default=None, description="The installed system's name; default: the machine's.")
    user_data_secret_ref: UserDataSecretRef | None = Field(
        default=None,
        description="cloud-init user data. It may not hold phone_home, which is how we know that the system is up.",
    )
    ssh_authorized_keys: Annotated[list[SSHKey], Field(max_length=32)] = Field(
        default=[], description="Public keys for the image's default user."
    )
    existing: bool = Field(
        default=False,
        description="Adopt a machine that runs already: Deployed at once, never commissioned, never rebooted.",
    )
    trigger: Trigger = Field(default="", description="Any new value re-installs; nothing else does.")
    timeout: Duration = Field(default=timedelta(minutes=60), description="How long one attempt may take.")
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=2, description="Attempts before the machine is Failed."
    )


class RootDeviceHints(Model):
    """Which disk the image is written to; every hint given must match. Without any: the smallest of 4 GiB or more."""

    device_name: Annotated[str, Field(json_schema_extra={"maxLength": 255})] | None = Field(
        default=None, description="Kernel name or /dev/disk/by-path link: /dev/sda."
    )
    serial: Annotated[str, Field(json_schema_extra={"maxLength": 255})] | None = Field(
        default=None, description="Serial number."
    )
    wwn: Annotated[str, Field(json_schema_extra={"maxLength": 255})] | None = Field(
        default=None, description="World-wide name, like 0x5000c50015ea71aa."
    )
    model: Annotated[str, Field(json_schema_extra={"maxLength": 255})] | None = Field(
        default=None, description="Model, or a part of it."
    )
    min_size_gib: Annotated[int, Field(ge=1)] | None = Field(default=None, description="At least this many GiB.")
    rotational: bool | None = Field(default=None, description="True for spinning disks, false for flash.")


class Storage(Model):
    """How the machine's disks are used."""

    root_device_hints: RootDeviceHints | None = Field(default=None, description="Which disk the image is written to.")


class FaultCategory(StrEnum):
    """What kind of fault an owner reports."""

    HARDWARE = "Hardware"
    NETWORK = "Network"
    PERFORMANCE = "Performance"
    OTHER = "Other"


class FaultReport(Model):
    """What the owner found wrong with the machine."""

    category: FaultCategory = Field(default=FaultCategory.OTHER, description="What kind of fault it is.")
    summary: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 1024})] = Field(
        description="What is wrong with it, for whoever repairs it."
    )


class Release(Model):
    """How the machine is taken back."""

    erase: EraseMode = Field(
        default=EraseMode.FULL,
        description=(
            "Full: every disk, securely where it can, else overwritten. Quick: partition tables and signatures. "
            "None: nothing, recorded as such."
        ),
    )
    timeout: Duration = Field(
        default=timedelta(hours=24), description="How long one attempt may take; large disks take hours."
    )
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="Attempts before the machine is Failed."
    )
    fault: FaultReport | None = Field(
        default=None,
        description=(
            "Set it when the deployment is withdrawn: the machine is erased as usual, and Broken with this reason "
            "instead of Ready until it is removed."
        ),
    )


class Rescue(Model):
    """A rescue environment in memory, wanted for as long as this is present; disks are not touched."""

    ssh_authorized_keys: Annotated[list[SSHKey], Field(min_length=1, max_length=32)] = Field(
        description="Public keys for the user rescue."
    )
    timeout: Duration = Field(
        default=timedelta(minutes=30), description="How long entering or leaving may take, one attempt."
    )
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="Attempts before the machine is Failed."
    )


class Broken(Model):
    """An admin's mark: not to be used for as long as this is present."""

    reason: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 1024})] = Field(
        description="What is wrong with it, for the next person."
    )


class PowerCycle(Model):
    """A restart, asked for once."""

    trigger: Trigger = Field(default="", description="Any new value restarts a machine that is on, once.")


class ReadinessGate(Model):
    """A condition that somebody else writes and that the pool waits for."""

    condition_type: GateType = Field(description="Type of a condition in status.conditions, like example.org/BurnIn.")


class BareMetalMachineSpec(Model):
    """What is wanted of the machine."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.deployment) || has(self.allocation)",
                "spec.deployment needs spec.allocation.owner: say whose the machine is before what runs on it",
            ),
            (
                (
                    "!has(self.allocation) || !has(oldSelf.allocation)"
                    " || self.allocation.owner == oldSelf.allocation.owner"
                ),
                (
                    "spec.allocation.owner can't change while it is set: remove spec.deployment and spec.allocation, "
                    "wait until the machine is Ready again, then allocate it anew"
                ),
            ),
            (
                "!self.accepted || (has(self.deployment) && self.deployment.existing) || has(self.bmc)",
                (
                    "spec.bmc is missing: an accepted machine needs the address of its BMC "
                    "(only one with deployment.existing does not)"
                ),
            ),
            (
                "!self.accepted || (has(self.deployment) && self.deployment.existing) || has(self.bootMACAddress)",
                (
                    "spec.bootMACAddress is missing: an accepted machine needs the address of the network card "
                    "that it boots from"
                ),
            ),
            (
                (
                    "!self.accepted || !has(self.bmc) || has(self.bmc.credentialsSecretRef)"
                    " || !self.bmc.address.matches('^(ipmi:|webhook[+])')"
                ),
                (
                    "spec.bmc.credentialsSecretRef is missing: name the Secret with the account of the ipmi:// BMC, or "
                    "with the key that calls to the webhook are signed with"
                ),
            ),
            (
                (
                    "!has(self.bmc) || !self.bmc.address.startsWith('manual:')"
                    " || (!has(self.power) && (!has(self.powerCycle.trigger) || self.powerCycle.trigger == ''))"
                ),
                (
                    "spec.power and spec.powerCycle need a BMC that can do it: with a manual:// address a person "
                    "moves the power, so remove them"
                ),
            ),
            (
                "!has(self.bmc) || !self.bmc.address.startsWith('manual:') || !has(self.rescue)",
                (
                    "spec.rescue needs a BMC that can start the machine: with a manual:// address nobody could tell "
                    "when the rescue is over"
                ),
            ),
            (
                "!has(self.rescue) || has(self.bootMACAddress)",
                (
                    "spec.rescue needs spec.bootMACAddress: the address of the network card by which the machine is "
                    "known when it asks what to boot"
                ),
            ),
        )
    )

    accepted: bool = Field(default=True, description="False for a machine that enlisted itself and nobody trusts yet.")
    architecture: Architecture = Field(default=Architecture.AMD64, description="Processor architecture.")
    boot_mode: BootMode = Field(default=BootMode.UEFI, description="The firmware's way of booting.")
    boot_mac_address: MACAddress | None = Field(
        default=None, description="The network card that the machine boots from."
    )
    bmc: BMC | None = Field(default=None, description="The baseboard management controller.")
    power: Literal["On", "Off"] | None = Field(
        default=None,
        description=(
            "Power wanted while the machine is idle or deployed; without it the phase decides. "
            "Quote it: YAML reads a bare On as true."
        ),
    )
    power_cycle: PowerCycle = Field(default=PowerCycle(), description="A restart of an idle or deployed machine.")
    locked: bool = Field(
        default=False,
        description=(
            "True: the operator stands down. Nothing but unlocking has an effect; power is watched and not corrected."
        ),
    )
    readiness_gates: Annotated[
        list[ReadinessGate],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["conditionType"]},
        ),
    ] = Field(
        default=[],
        description=(
            "Conditions that others write into status.conditions and that must be True before the machine is given "
            "to anybody: it leaves Commissioning only then, and a Ready one is not allocated while one isn't."
        ),
    )
    commissioning: Commissioning = Field(
        default=Commissioning(), description="How it is checked before it joins the pool."
    )
    allocation: Allocation | None = Field(default=None, description="Whose the machine is.")
    deployment: Deployment | None = Field(
        default=None, description="What runs on it; removing it releases the machine."
    )
    storage: Storage = Field(default=Storage(), description="How its disks are used.")
    release: Release = Field(default=Release(), description="How it is taken back.")
    rescue: Rescue | None = Field(default=None, description="Present: a rescue environment is wanted.")
    broken: Broken | None = Field(default=None, description="Present: marked as not to be used.")


@dataclass(config=CONFIG, frozen=True, slots=True, kw_only=True)
class HardwareSummary:
    """The hardware in a line; the whole report is the HardwareInventory of the same name."""

    cpus: int = Field(default=0, description="Logical processors.")
    memory_mib: int = Field(default=0, description="Physical memory in MiB.")
    disks: int = Field(default=0, description="Number of disks.")
    disk_gib: int = Field(default=0, description="All disks together in GiB, rounded down.")
    nics: int = Field(default=0, description="Number of network cards.")
    vendor: str = Field(default="", description="Manufacturer of the system.")
    model: str = Field(default="", description="Product name of the system.")
    serial: str = Field(default="", description="Serial number of the system.")
    mac_addresses: list[str] = Field(
        default_factory=list,
        description=(
            "Hardware addresses of its network cards, 32 at most, without those that its BMC presents: by any of them "
            "the machine is recognised."
        ),
    )


class Installed(Model):
    """What was written to the disks; present from before the first write, forgotten only by a successful erase."""

    image: str | None = Field(
        default=None, description="Name of the OperatingSystemImage; absent for an adopted machine."
    )
    checksum: Checksum | None = Field(default=None, description="Checksum of what was written.")
    disk: str | None = Field(
        default=None,
        description="Serial number of the disk that it was written to, else its WWN or path; absent where the "
        "HardwareInventory doesn't tell.",
    )
    hostname: str = Field(default="", description="Name that the system reported.")
    configuration: str | None = Field(
        default=None,
        description="Digest of the hostname, SSH keys and root device hints that it was installed with.",
    )
    user_data: str | None = Field(
        default=None, description="Keyed digest of the user data that it was installed with; tells nothing of them."
    )
    at: Time | None = Field(default=None, description="When the installed system first reported; absent until it did.")
    operation: str | None = Field(
        default=None, description="Id of the attempt whose system reported: if it reports again, it is told so."
    )
    addresses: list[str] = Field(default=[], description="IP addresses that the system reported from.")
    ssh_host_keys: list[str] = Field(
        default=[], description="The system's public SSH host keys, for a known_hosts file."
    )


class RescueEnvironment(Model):
    """A rescue environment that waits for its users."""

    user: str = Field(description="Name to log in with.")
    addresses: list[str] = Field(default=[], description="IP addresses that its agent reported from.")
    ssh_host_keys: list[str] = Field(
        default=[], description="The environment's public SSH host keys, for a known_hosts file."
    )


class OperationName(StrEnum):
    """What is being done to a machine; each operation belongs to one phase, but a restart, which changes none."""

    COMMISSION = "Commission"
    DEPLOY = "Deploy"
    RELEASE = "Release"
    RESCUE = "Rescue"
    END_RESCUE = "EndRescue"
    RESTART = "Restart"


class Operation(Model):
    """One attempt at an operation, recorded before anything hears of it."""

    id: str = Field(
        description="Names this attempt; the agent's and the installed system's tokens are derived from it."
    )
    name: OperationName = Field(description="What is being done.")
    attempt: int = Field(default=1, description="Which attempt this is, from 1.")
    step: str = Field(default="", description="What it is doing now.")
    step_started_at: Time | None = Field(default=None, description="Since when.")
    began_at: Time = Field(description="When the operation's first attempt began.")
    started_at: Time = Field(description="When this attempt began.")
    deadline: Time = Field(description="When this attempt is given up.")
    next_retry_at: Time | None = Field(default=None, description="Nothing is done before; set after a failed attempt.")
    message: str = Field(default="", description="What it is waiting for, in a sentence.")


class Failure(Model):
    """The last failure of an operation."""

    operation: OperationName = Field(description="What was being done.")
    step: str = Field(default="", description="At which step.")
    failure_class: str = Field(
        alias="class",
        description="Whose fault it was: BMC, Agent, Image, Disk, Configuration, OperatingSystem or Timeout.",
    )
    reason: str = Field(description="What went wrong, as one CamelCase word.")
    message: str = Field(description="What went wrong and what to do, in a sentence.")
    attempt: int = Field(default=1, description="Which attempt it was.")
    at: Time = Field(description="When.")


class Erasure(Model):
    """Evidence of one disk's erase."""

    device: str = Field(description="Kernel name at the time, like /dev/sda.")
    serial: str = Field(default="", description="Serial number.")
    wwn: str = Field(default="", description="World-wide name.")
    method: str = Field(
        description="How it was erased; None where policy asked for no erase; Failed where it could not be."
    )
    verified: bool = Field(description="Whether reading sampled sectors back showed that it is erased.")
    message: str = Field(default="", description="What the verification saw.")
    at: Time = Field(description="When.")


@dataclass(config=CONFIG, frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """An operation that ended."""

    name: OperationName = Field(description="What was done.")
    outcome: Literal["Succeeded", "Failed", "Abandoned"] = Field(
        description="How it ended; Abandoned: the spec changed."
    )
    reason: str = Field(default="", description="Why, as one CamelCase word.")
    attempts: int = Field(default=1, description="How many attempts it took.")
    started_at: Time = Field(description="When its first attempt began.")
    duration: Duration = Field(description="How long it took, all attempts together.")


class ObservedTriggers(Model):
    """The last values of the triggers that were acted upon."""

    commissioning: str = Field(default="", description="Of spec.commissioning.trigger.")
    deployment: str = Field(default="", description="Of spec.deployment.trigger.")
    power_cycle: str = Field(default="", description="Of spec.powerCycle.trigger.")


class BareMetalMachineStatus(Model):
    """What was last observed and done; written by the operator alone, but for conditions of other types."""

    phase: Phase | None = Field(default=None, description="Where the machine is in its life-cycle.")
    phase_since: Time | None = Field(default=None, description="When it came to this phase.")
    observed_generation: int = Field(
        default=0, description="The generation of spec that this status answers; -1: none yet."
    )
    conditions: list[AnyCondition] = Field(
        default=[],
        description="Ready, Reconciling, Stalled and the rest, by type; other types are other writers' and are kept.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    power: Power = Field(default=Power.UNKNOWN, description="Power, as the BMC reported it.")
    powered_at: Time | None = Field(default=None, description="When power was last seen to change.")
    shutdown_asked_at: Time | None = Field(
        default=None,
        description="When its system was asked to shut down, while that is awaited; its power is cut if it doesn't.",
    )
    owner: str | None = Field(default=None, description="Whose the machine is until it is released.")
    hardware: HardwareSummary | None = Field(default=None, description="The hardware in a line.")
    installed: Installed | None = Field(default=None, description="What its disks hold.")
    operation: Operation | None = Field(default=None, description="What is being done to it.")
    last_failure: Failure | None = Field(
        default=None, description="The last failure; kept until an operation succeeds."
    )
    erasure: list[Erasure] = Field(default=[], description="Evidence of the last release, per disk.")
    rescue: RescueEnvironment | None = Field(
        default=None, description="How to log in to the rescue environment; absent until it is open."
    )
    rescued_from: Phase | None = Field(default=None, description="The phase to return to when the rescue is withdrawn.")
    observed_triggers: ObservedTriggers = Field(
        default=ObservedTriggers(), description="The triggers that were acted upon."
    )
    history: list[HistoryEntry] = Field(
        default=[], description="The last ten operations, newest first; of each kind the last that ended stays."
    )

    @property
    def own_conditions(self) -> list[Condition]:
        """Those that the operator writes."""
        return [condition for condition in self.conditions if isinstance(condition, Condition)]
