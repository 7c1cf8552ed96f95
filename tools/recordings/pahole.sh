#!/bin/sh
# What pahole prints for two structs (`packet`, `bits`), and what a compiler makes of the first one (`compiled`): the
# texts of kernelnotes/recordings/pahole-*.txt behind their headers.  Needs dwarves, and a gcc that knows -m32.
set -eu
cd "$(mktemp -d)"

run() { # the command as a reader would type it, and what it says
    echo "\$ $*"
    "$@"
}

packet() {
    cat >packet.c <<'C'
#include <linux/auto_fs.h>
struct autofs_v5_packet packet;
C
    run gcc -m32 -g -c packet.c
    run pahole -C autofs_v5_packet packet.o
}

bits() {
    cat >bits.c <<'C'
struct bits {
	unsigned char      b1 : 3;
	unsigned int          : 0;
	unsigned char      b2 : 5;
	unsigned long long b3 : 33;
} bits;
C
    run cat bits.c
    run gcc -m64 -g -c bits.c
    run pahole -C bits bits.o
}

compiled() {
    cat >both.c <<'C'
#include <linux/auto_fs.h>
#include <stddef.h>
#include <stdio.h>

struct as_printed {
	struct autofs_packet_hdr hdr;
	autofs_wqt_t             wait_queue_token;
	__u32                    dev;
	__u64                    ino;
	__u32                    uid, gid, pid, tgid, len;
	char                     name[256];
} __attribute__((__packed__));

struct source  { char c; struct autofs_v5_packet packet; };
struct printed { char c; struct as_printed packet; };

#define SAY(what) printf("%-36s %3zu\n", #what, (size_t)(what))

int main(void) {
	SAY(sizeof(struct autofs_v5_packet));   SAY(sizeof(struct as_printed));
	SAY(_Alignof(struct autofs_v5_packet)); SAY(_Alignof(struct as_printed));
	SAY(offsetof(struct source, packet));   SAY(offsetof(struct printed, packet));
	SAY(__alignof__(unsigned long long));   SAY(_Alignof(unsigned long long));
}
C
    run gcc -m32 both.c -o both
    run ./both
}

"$1"
