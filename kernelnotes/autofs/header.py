"""What kernel and daemon agreed on, as C: the packets of the pipe, the ioctls, and the structs of /dev/autofs.

    records("i386")["struct autofs_v5_packet"]      for `layout`
    IOCTLS["AUTOFS_IOC_SETTIMEOUT"].number("i386")  0xc0049364; on x86-64 it is 0xc0089364

Source: include/uapi/linux/auto_fs.h and auto_dev-ioctl.h; names, members and their order are the kernel's, the
comments ours.  Left out: the functions of the headers, and AUTOFS_IOC_SETTIMEOUT32, whose argument has a type
(compat_ulong_t) that only the kernel knows: it is the number that AUTOFS_IOC_SETTIMEOUT has for a 32-bit program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from kernelnotes import cdecl
from kernelnotes.abi import Abi, find
from kernelnotes.layout import Layout, layout
from kernelnotes.layout.place import number

NAME_MAX = 255  # bytes of the longest file name, without the NUL

PACKETS_H = """
#include <linux/types.h>

#define NAME_MAX 255

/* A request waits in the kernel under this number; READY or FAIL of it ends the wait. */
#if defined(__ia64__) || defined(__alpha__)
typedef unsigned long autofs_wqt_t;
#else
typedef unsigned int autofs_wqt_t;
#endif

struct autofs_packet_hdr {
	int proto_version;
	int type;
};

/* Protocols 3 and 4: a name is missing. */
struct autofs_packet_missing {
	struct autofs_packet_hdr hdr;
	autofs_wqt_t wait_queue_token;
	int len;
	char name[NAME_MAX+1];
};

/* Never on the pipe: AUTOFS_IOC_EXPIRE fills one in.  Nobody waits, so it has no token. */
struct autofs_packet_expire {
	struct autofs_packet_hdr hdr;
	int len;
	char name[NAME_MAX+1];
};

/* Protocol 4: unmount this. */
struct autofs_packet_expire_multi {
	struct autofs_packet_hdr hdr;
	autofs_wqt_t wait_queue_token;
	int len;
	char name[NAME_MAX+1];
};

/* Protocol 5, all four types: what the story is about. */
struct autofs_v5_packet {
	struct autofs_packet_hdr hdr;
	autofs_wqt_t wait_queue_token;
	__u32 dev;		/* of the autofs mount */
	__u64 ino;		/* of its root */
	__u32 uid;		/* of who asked, as the next three */
	__u32 gid;
	__u32 pid;		/* of the thread */
	__u32 tgid;		/* of the process */
	__u32 len;		/* of the name, in bytes, without the NUL */
	char name[NAME_MAX+1];
};
"""

IOCTLS_H = """
#define AUTOFS_IOCTL 0x93

#define AUTOFS_IOC_READY	_IO(AUTOFS_IOCTL, 0x60)
#define AUTOFS_IOC_FAIL		_IO(AUTOFS_IOCTL, 0x61)
#define AUTOFS_IOC_CATATONIC	_IO(AUTOFS_IOCTL, 0x62)
#define AUTOFS_IOC_PROTOVER	_IOR(AUTOFS_IOCTL, 0x63, int)
#define AUTOFS_IOC_SETTIMEOUT	_IOWR(AUTOFS_IOCTL, 0x64, unsigned long)
#define AUTOFS_IOC_EXPIRE	_IOR(AUTOFS_IOCTL, 0x65, struct autofs_packet_expire)
#define AUTOFS_IOC_EXPIRE_MULTI	_IOW(AUTOFS_IOCTL, 0x66, int)
#define AUTOFS_IOC_PROTOSUBVER	_IOR(AUTOFS_IOCTL, 0x67, int)
#define AUTOFS_IOC_ASKUMOUNT	_IOR(AUTOFS_IOCTL, 0x70, int)

#define AUTOFS_DEV_IOCTL_VERSION	_IOWR(AUTOFS_IOCTL, 0x71, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_PROTOVER	_IOWR(AUTOFS_IOCTL, 0x72, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_PROTOSUBVER	_IOWR(AUTOFS_IOCTL, 0x73, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_OPENMOUNT	_IOWR(AUTOFS_IOCTL, 0x74, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_CLOSEMOUNT	_IOWR(AUTOFS_IOCTL, 0x75, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_READY		_IOWR(AUTOFS_IOCTL, 0x76, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_FAIL		_IOWR(AUTOFS_IOCTL, 0x77, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_SETPIPEFD	_IOWR(AUTOFS_IOCTL, 0x78, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_CATATONIC	_IOWR(AUTOFS_IOCTL, 0x79, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_TIMEOUT	_IOWR(AUTOFS_IOCTL, 0x7a, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_REQUESTER	_IOWR(AUTOFS_IOCTL, 0x7b, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_EXPIRE		_IOWR(AUTOFS_IOCTL, 0x7c, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_ASKUMOUNT	_IOWR(AUTOFS_IOCTL, 0x7d, struct autofs_dev_ioctl)
#define AUTOFS_DEV_IOCTL_ISMOUNTPOINT	_IOWR(AUTOFS_IOCTL, 0x7e, struct autofs_dev_ioctl)

struct args_protover { __u32 version; };
struct args_protosubver { __u32 sub_version; };
struct args_openmount { __u32 devid; };
struct args_ready { __u32 token; };
struct args_fail { __u32 token; __s32 status; };
struct args_setpipefd { __s32 pipefd; };
struct args_timeout { __u64 timeout; };
struct args_requester { __u32 uid; __u32 gid; };
struct args_expire { __u32 how; };
struct args_askumount { __u32 may_umount; };
struct args_ismountpoint {
	union {
		struct args_in { __u32 type; } in;
		struct args_out { __u32 devid; __u32 magic; } out;
	};
};

/* Says which version it is and how long, path included: what the packet of the pipe lacks. */
struct autofs_dev_ioctl {
	__u32 ver_major;
	__u32 ver_minor;
	__u32 size;
	__s32 ioctlfd;
	union {
		struct args_protover protover;
		struct args_protosubver protosubver;
		struct args_openmount openmount;
		struct args_ready ready;
		struct args_fail fail;
		struct args_setpipefd setpipefd;
		struct args_timeout timeout;
		struct args_requester requester;
		struct args_expire expire;
		struct args_askumount askumount;
		struct args_ismountpoint ismountpoint;
	};
	char path[];
};
"""


def records(abi: str | Abi) -> cdecl.Records:
    """The records of both headers as a compiler for the ABI reads them.  Raises BadInput for an unknown ABI."""
    return _read(find(abi).name == "alpha")


@lru_cache
def _read(alpha: bool) -> cdecl.Records:
    # autofs_wqt_t is a long on alpha; nothing else in the text asks which machine it is.
    return cdecl.parse(PACKETS_H + IOCTLS_H, {"__alpha__": "1"} if alpha else {}, filename="auto_fs.h")


@lru_cache
def placed(record: str, abi: Abi) -> Layout:
    """The record, such as `struct autofs_v5_packet`, laid out."""
    return layout(records(abi)[record], abi)


@dataclass(frozen=True, slots=True)
class Command:
    """One ioctl, as the header defines it."""

    name: str

    def number(self, abi: str | Abi) -> int:
        """The number that a program compiled for the ABI passes: the size of the argument is part of it.

        Raises BadInput for an unknown ABI.
        """
        return number(records(abi).ioctls[self.name].number, find(abi))

    @property
    def device(self) -> bool:
        """True if it goes to /dev/autofs, False if to the root of a mount."""
        return self.name.startswith("AUTOFS_DEV_IOCTL_")


IOCTLS: Mapping[str, Command] = MappingProxyType(
    {
        words[1]: Command(words[1])
        for words in map(str.split, IOCTLS_H.splitlines())
        if words[:1] == ["#define"] and words[1] != "AUTOFS_IOCTL"
    }
)
