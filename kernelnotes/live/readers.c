/*
 * The daemons' ways to read a packet, for real: compiled by a real compiler against the kernel's own header, asking a
 * real uname(), reading from a real pipe.
 *
 *     readers FD READER [32] [2.6]
 *
 * READER is a name of kernelnotes.autofs.READERS; the pipe is non-blocking.  "32" makes uname() say that the machine is
 * a 32-bit one, as it does on a 32-bit kernel, "2.6" that the kernel is older than 3.3.  It prints a line about itself,
 * then one for each event; after each line it waits for a byte on standard input, so that who runs it decides what
 * happens meanwhile.  It ends where that or the pipe does.
 */
#include <errno.h>
#include <linux/auto_fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef UNAME26
#define UNAME26 0x0020000
#endif

static int fd;
static size_t want, got;
static union {
	struct autofs_v5_packet packet;
	char bytes[4096];
} in;

static void stand_still(void)
{
	char go;

	fflush(stdout);
	if (read(0, &go, 1) != 1)
		exit(0);
}

static void event(const char *kind)
{
	printf("%s %zu %zu %d %d %u\n", kind, got, want, in.packet.hdr.proto_version, in.packet.hdr.type,
	       (unsigned int)in.packet.wait_queue_token);
	stand_still();
}

/* One read(); it counts what it got, and returns 0 if there was nothing to be had yet. */
static int reads(size_t most)
{
	ssize_t n = read(fd, in.bytes + got, most);

	if (n < 0 && errno == EAGAIN) {
		event("waits");
		return 0;
	}
	if (n <= 0)
		exit(n < 0);
	got += n;
	return 1;
}

/* systemd and automount: ask for the rest until it is there. */
static void read_on(void)
{
	while (got < want)
		if (reads(want - got) && got < want)
			event("short");
	event("packet");
}

/* One read(), and all of it. */
static void read_once(void)
{
	while (!reads(want))
		;
	if (got == want) {
		event("packet");
		return;
	}
	close(fd);
	event("dies");
	exit(0);
}

static size_t own_size(void)
{
	return sizeof(struct autofs_v5_packet);
}

/* automount 5.0.1 to 5.0.6 */
static size_t kpkt_len_2007(void)
{
	static const char *const wide[] = { "alpha", "ia64", "x86_64", "ppc64" };
	struct utsname host;
	size_t i, more = 0;

	uname(&host);
	for (i = 0; i < sizeof(wide) / sizeof(*wide); i++)
		if (own_size() % 8 && !strcmp(host.machine, wide[i]))
			more = 4;
	return own_size() + more;
}

/* automount since 5.0.7 */
static size_t kpkt_len_2012(void)
{
	struct utsname host;
	int major = 0, minor = 0;

	uname(&host);
	sscanf(host.release, "%d.%d", &major, &minor);
	return major > 3 || (major == 3 && minor >= 3) ? own_size() : kpkt_len_2007();
}

static const struct reader {
	const char *name;
	size_t (*wants)(void);
	void (*take)(void);
} READERS[] = {
	{ "systemd", own_size, read_on },
	{ "single read", own_size, read_once },
	{ "automount 5.0.6", kpkt_len_2007, read_on },
	{ "automount 5.0.7", kpkt_len_2012, read_on },
};

int main(int argc, char **argv)
{
	const struct reader *reader = READERS, *end = READERS + sizeof(READERS) / sizeof(*READERS);
	unsigned long as = 0;
	struct utsname host;
	int i;

	for (i = 3; i < argc; i++)
		as |= strcmp(argv[i], "32") ? UNAME26 : PER_LINUX32;
	if (argc < 3 || (as && personality(as) < 0))
		return 2;
	while (reader < end && strcmp(reader->name, argv[2]))
		reader++;
	if (reader == end)
		return 2;
	fd = atoi(argv[1]);
	want = reader->wants();
	uname(&host);
	printf("%d %zu %zu %s %s\n", (int)(8 * sizeof(void *)), own_size(), want, host.machine, host.release);
	stand_still();
	for (;;) {
		memset(&in, 0, sizeof(in));
		got = 0;
		reader->take();
	}
}
