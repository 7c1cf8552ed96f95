/* An automounter that trusts sizeof: one read, one packet.  Compiled with -m32 it asks for 300 bytes.
 * strict_reader PATH ROOT: standard input is the pipe, ROOT the file descriptor of the autofs mounted on PATH. */
#include <errno.h>
#include <linux/auto_fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct autofs_v5_packet packet;
	char path[4096];

	(void)argc;
	setvbuf(stdout, NULL, _IONBF, 0);
	for (;;) {
		ssize_t got = read(0, &packet, sizeof packet);
		if (got != sizeof packet) {
			printf("short %zd of %zu\n", got, sizeof packet);
			return 1;
		}
		printf("read %zd proto %d type %d token %u ", got, packet.hdr.proto_version, packet.hdr.type,
		       packet.wait_queue_token);
		if (packet.hdr.type == autofs_ptype_missing_indirect) {
			snprintf(path, sizeof path, "%s/%s", argv[1], packet.name);
			mkdir(path, 0755);
			mount("tmpfs", path, "tmpfs", 0, "");
		}
		errno = 0;
		ioctl(atoi(argv[2]), AUTOFS_IOC_READY, packet.wait_queue_token);
		printf("ready %d\n", errno);
	}
}
