/* The floor under kernelnotes.live.repair: one move of a connection (freeze, dump, release, close, a new socket,
 * restore) as the same system calls in the same order, and nothing around them.  IPv4, ESTABLISHED, no filter of the
 * application's, nothing unsent.  Compiled by benchmarks/repair.py into a library, which gives it the table of options.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#define REPAIR_OFF_SILENTLY (-1)
/* Codes of struct tcp_repair_opt: those of the options in a segment. */
enum { CODE_MSS = 2, CODE_WINDOW = 3, CODE_SACK_PERM = 4, CODE_TIMESTAMP = 8 };
#define MARK 0xC114
#define LARGE 8192
#define MOST_OPTIONS 64
#define MOST_QUEUED (1 << 20)

enum { ALWAYS = 1, LATE = 2, BY_HAND = 4 }; /* kept even if unset is what it is; set behind the queues; by code */

struct option {
    int level, number, size, flags, unset; /* size 0: an int; else bytes, unset where all are zero */
};
struct value {
    int number;
    socklen_t size;
    char bytes[16];
};
struct numbers { /* what is read twice */
    int state, offered, scales, notsent, outq, inq;
    uint32_t window[5], rcv_nxt, write_seq;
};
struct snapshot {
    struct numbers n;
    struct sockaddr_in local, peer;
    int reuseaddr, clamp;
    uint32_t clock;
    double taken;
    char identity[16], interface[16];
    struct value values[MOST_OPTIONS];
};

static const struct option *options;
static int option_count;
static char received[MOST_QUEUED + 1], sent[MOST_QUEUED + 1];
static struct sock_filter drop[] = {
    {0x20, 0, 0, 0xFFFFF000 + 20}, {0x15, 0, 1, MARK}, {0x06, 0, 0, 0xFFFFFFFF}, {0x06, 0, 0, 0}};

void set_options(const struct option *table, int count) {
    options = table;
    option_count = count;
}

#define MUST(call) ((call) < 0 ? fail(#call) : (void)0)

static void fail(const char *call) {
    perror(call);
    _exit(1);
}

static int get(int fd, int level, int option) {
    int value = 0;
    socklen_t size = sizeof value;
    MUST(getsockopt(fd, level, option, &value, &size));
    return value;
}

static void get_bytes(int fd, int level, int option, void *into, socklen_t size) {
    MUST(getsockopt(fd, level, option, into, &size));
}

static void set(int fd, int level, int option, int value) {
    MUST(setsockopt(fd, level, option, &value, sizeof value));
}

static void set_bytes(int fd, int level, int option, const void *value, socklen_t size) {
    MUST(setsockopt(fd, level, option, value, size));
}

static int ask(int fd, unsigned long request) {
    int value = 0;
    MUST(ioctl(fd, request, &value));
    return value;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------------------------ signals wait meanwhile */

static const int HELD[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t pending;

static void arrived(int number) { pending = number; }

static void hold(struct sigaction before[3]) {
    struct sigaction action = {.sa_handler = arrived, .sa_flags = SA_ONSTACK};
    for (int i = 0; i < 3; i++) MUST(sigaction(HELD[i], &action, &before[i]));
}

static void give_back(struct sigaction before[3]) {
    for (int i = 0; i < 3; i++) MUST(sigaction(HELD[i], &before[i], NULL));
}

/* ------------------------------------------------------------------------------------ freeze, dump, release */

static void lock(int fd) {
    struct sock_fprog program = {sizeof drop / sizeof drop[0], drop};
    set_bytes(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static void look(int fd, struct snapshot *s) {
    char info[148], ulp[16];
    struct pollfd p = {fd, POLLPRI | POLLERR, 0};
    socklen_t size = sizeof s->local, none = 0;
    int wrong = get(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP;
    get_bytes(fd, IPPROTO_TCP, TCP_INFO, info, sizeof info);
    wrong |= info[0] != 1 || get(fd, IPPROTO_TCP, TCP_REPAIR);
    get_bytes(fd, IPPROTO_TCP, TCP_ULP, ulp, sizeof ulp);
    wrong |= poll(&p, 1, 0) != 0;
    wrong |= get(fd, SOL_SOCKET, SO_LOCK_FILTER);
    s->reuseaddr = get(fd, SOL_SOCKET, SO_REUSEADDR);
    wrong |= get(fd, SOL_SOCKET, SO_PEEK_OFF) != -1;
    wrong |= get(fd, SOL_SOCKET, SO_OOBINLINE);
    MUST(getsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, NULL, &none));
    MUST(getsockname(fd, (struct sockaddr *)&s->local, &size));
    size = sizeof s->peer;
    MUST(getpeername(fd, (struct sockaddr *)&s->peer, &size));
    if (wrong || none) fail("look");
}

static void freeze(int fd) {
    lock(fd);
    set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
    int apart = ask(fd, SIOCINQ);
    set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    int in_line = ask(fd, SIOCINQ);
    set(fd, SOL_SOCKET, SO_OOBINLINE, 0);
    if (apart != in_line) fail("urgent data");
    char info[148];
    int notsent;
    get_bytes(fd, IPPROTO_TCP, TCP_INFO, info, sizeof info);
    memcpy(&notsent, info + 144, sizeof notsent);
    if (notsent) fail("never sent");
}

static void read_numbers(int fd, struct numbers *n) {
    unsigned char info[148];
    get_bytes(fd, IPPROTO_TCP, TCP_INFO, info, sizeof info);
    n->state = info[0], n->offered = info[5], n->scales = info[6];
    memcpy(&n->notsent, info + 144, 4);
    n->outq = ask(fd, SIOCOUTQ);
    n->inq = ask(fd, SIOCINQ);
    get_bytes(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, n->window, sizeof n->window);
    set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
    n->rcv_nxt = get(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
    set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
    n->write_seq = get(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
}

static void read_options(int fd, struct snapshot *s) {
    for (int i = 0; i < option_count; i++) {
        const struct option *o = &options[i];
        struct value *v = &s->values[i];
        v->size = o->size ? (socklen_t)o->size : sizeof(int);
        v->number = 0;
        MUST(getsockopt(fd, o->level, o->number, o->size ? (void *)v->bytes : &v->number, &v->size));
    }
}

static void dump(int fd, struct snapshot *s) {
    struct numbers again = {0};
    memset(&s->n, 0, sizeof s->n);
    read_numbers(fd, &s->n);
    if (s->n.inq > MOST_QUEUED || s->n.outq > MOST_QUEUED) fail("queues too long");
    if (s->n.outq && recv(fd, sent, s->n.outq + 1, MSG_PEEK | MSG_DONTWAIT) != s->n.outq) fail("send queue");
    if (s->n.inq) {
        set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
        if (recv(fd, received, s->n.inq + 1, MSG_PEEK | MSG_DONTWAIT) != s->n.inq) fail("receive queue");
    }
    s->clamp = get(fd, IPPROTO_TCP, TCP_MAXSEG);
    get_bytes(fd, SOL_SOCKET, SO_BINDTODEVICE, s->interface, sizeof s->interface);
    s->clock = get(fd, IPPROTO_TCP, TCP_TIMESTAMP);
    s->taken = now();
    MUST(getrandom(s->identity, sizeof s->identity, 0));
    read_options(fd, s);
    read_numbers(fd, &again);
    set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
    if (memcmp(&again, &s->n, sizeof again) || again.notsent) fail("dump");
}

static void release(int fd) {
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    MUST(connect(fd, &nobody, sizeof nobody));
    set(fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF_SILENTLY);
    set(fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
}

/* ------------------------------------------------------------------------------------ restore */

static const struct value *value_of(const struct snapshot *s, int number) {
    for (int i = 0; i < option_count; i++)
        if (options[i].level == SOL_SOCKET && options[i].number == number) return &s->values[i];
    return NULL;
}

static int differs(const struct option *o, const struct value *v) {
    static const char zeros[16];
    if (o->flags & ALWAYS) return 1;
    return o->size ? memcmp(v->bytes, zeros, v->size) != 0 : v->number != o->unset;
}

static void set_those(int fd, const struct snapshot *s, int late) {
    for (int i = 0; i < option_count; i++) {
        const struct option *o = &options[i];
        const struct value *v = &s->values[i];
        if ((o->flags & (LATE | BY_HAND)) != late || !differs(o, v)) continue;
        if (o->level == IPPROTO_TCP && o->number == TCP_CONGESTION)
            set_bytes(fd, o->level, o->number, v->bytes, strnlen(v->bytes, v->size));
        else if (o->size)
            set_bytes(fd, o->level, o->number, v->bytes, v->size);
        else
            set(fd, o->level, o->number, v->number);
    }
}

static void negotiated(int fd, const struct snapshot *s) {
    struct tcp_repair_opt pairs[4] = {{CODE_MSS, s->clamp}};
    int n = 1;
    if (s->n.offered & TCPI_OPT_WSCALE)
        pairs[n++] = (struct tcp_repair_opt){CODE_WINDOW, (s->n.scales & 15) | s->n.scales >> 4 << 16};
    if (s->n.offered & TCPI_OPT_SACK) pairs[n++] = (struct tcp_repair_opt){CODE_SACK_PERM, 0};
    if (s->n.offered & TCPI_OPT_TIMESTAMPS) pairs[n++] = (struct tcp_repair_opt){CODE_TIMESTAMP, 0};
    set_bytes(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, pairs, n * sizeof pairs[0]);
    if (!(s->n.offered & TCPI_OPT_TIMESTAMPS)) return;
    double elapsed_ms = (now() - s->taken) * 1000;
    set(fd, IPPROTO_TCP, TCP_TIMESTAMP, (s->clock & ~1u) + (uint32_t)(elapsed_ms > 0 ? elapsed_ms : 0) + 4);
}

static void put(int fd, const char *data, int size) {
    for (ssize_t done; size; data += done, size -= done)
        MUST(done = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void queues(int fd, const struct snapshot *s) {
    if (s->n.inq) {
        if (s->n.inq > LARGE) set(fd, SOL_SOCKET, SO_RCVBUFFORCE, s->n.inq);
        put(fd, received, s->n.inq);
    }
    if (s->n.outq > LARGE) set(fd, SOL_SOCKET, SO_SNDBUFFORCE, s->n.outq + (64 << 10));
    if (s->n.outq) {
        set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
        put(fd, sent, s->n.outq);
    }
    set_bytes(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, s->n.window, sizeof s->n.window);
}

static void late(int fd, const struct snapshot *s) {
    int locked = value_of(s, SO_BUF_LOCK)->number;
    int sndbuf = s->n.outq > LARGE || locked & SOCK_SNDBUF_LOCK, rcvbuf = s->n.inq > LARGE || locked & SOCK_RCVBUF_LOCK;
    if (sndbuf) set(fd, SOL_SOCKET, SO_SNDBUFFORCE, value_of(s, SO_SNDBUF)->number / 2);
    if (rcvbuf) set(fd, SOL_SOCKET, SO_RCVBUFFORCE, value_of(s, SO_RCVBUF)->number / 2);
    if (sndbuf || rcvbuf) set(fd, SOL_SOCKET, SO_BUF_LOCK, locked);
    set_those(fd, s, LATE);
}

static void begin(int fd, int queue, uint32_t seq) {
    set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
    set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, seq);
}

static int restore(const struct snapshot *s) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
    lock(fd);
    set_those(fd, s, 0);
    set(fd, IPPROTO_TCP, TCP_MAXSEG, s->clamp < 32767 ? s->clamp : 32767);
    MUST(bind(fd, (const struct sockaddr *)&s->local, sizeof s->local));
    begin(fd, TCP_SEND_QUEUE, s->n.write_seq - s->n.outq);
    begin(fd, TCP_RECV_QUEUE, s->n.rcv_nxt - s->n.inq);
    MUST(connect(fd, (const struct sockaddr *)&s->peer, sizeof s->peer));
    negotiated(fd, s);
    queues(fd, s);
    late(fd, s);
    set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
    set(fd, SOL_SOCKET, SO_DETACH_FILTER, 0);
    set(fd, IPPROTO_TCP, TCP_REPAIR, 0);
    set(fd, SOL_SOCKET, SO_REUSEADDR, s->reuseaddr);
    return fd;
}

/* ------------------------------------------------------------------------------------ */

static int move(int fd) {
    static struct snapshot s;
    struct sigaction before[3];
    hold(before);
    look(fd, &s);
    freeze(fd);
    dump(fd, &s);
    release(fd);
    give_back(before);
    close(fd);
    hold(before);
    fd = restore(&s);
    give_back(before);
    return fd;
}

/* Moves the connection `count` times, each time in nanoseconds into `took`; its file descriptor. */
int moves(int fd, int count, int64_t *took) {
    for (int i = 0; i < count; i++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        fd = move(fd);
        clock_gettime(CLOCK_MONOTONIC, &end);
        took[i] = (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec;
    }
    return fd;
}
