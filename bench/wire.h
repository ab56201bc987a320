/* What the two programs of the bench share: a clock, option parsing and sockets that only ever touch loopback.
 *
 * Everything here is static inline so that mock.c and load.c stay one translation unit each: cc -O2 -o mock mock.c.
 */
#ifndef FAREGATE_BENCH_WIRE_H
#define FAREGATE_BENCH_WIRE_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NANOS_PER_SECOND 1000000000LL
#define NANOS_PER_MILLI 1000000LL

static inline int64_t now_nanos(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NANOS_PER_SECOND + t.tv_nsec;
}

/* epoll_wait that does not sleep while there is traffic: it looks and gives the core to the other program, and only
 * sleeps (for `timeout` milliseconds) after a second without any event.
 *
 * A sleeper on the load's core must be woken by whoever writes to it. In a virtual machine that is an interrupt to the
 * other core, dearer than everything nginx does for a request, and it would be booked on the gateway: a fast one,
 * whose peers never find time to sleep, would be spared, a slow one would pay it twice for every request.
 */
static inline int wait_awake(int loop, struct epoll_event *ready, int most, int timeout)
{
    static int64_t awake_until;
    int64_t began = now_nanos();
    for (;;) {
        int n = epoll_wait(loop, ready, most, 0);
        if (n < 0)
            return n;
        int64_t now = now_nanos();
        if (n > 0) {
            awake_until = now + NANOS_PER_SECOND;
            return n;
        }
        if (now >= awake_until)
            return epoll_wait(loop, ready, most, timeout);
        if (timeout >= 0 && now >= began + timeout * NANOS_PER_MILLI)
            return 0;
        sched_yield();
    }
}

static inline void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "not possible");
    exit(1);
}

/* The value after option `name`, or `otherwise` where it was not given. */
static inline const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

static inline long option_number(int argc, char **argv, const char *name, long otherwise)
{
    const char *text = option(argc, argv, name, NULL);
    if (text == NULL)
        return otherwise;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *end || value < 0) {
        fprintf(stderr, "%s: expected a whole number, got %s\n", name, text);
        exit(2);
    }
    return value;
}

static inline bool option_given(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

/* A non-blocking TCP socket without Nagle's delay: both sides write whole messages. */
static inline int tcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static inline struct sockaddr_in loopback(long port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

/* Thousands of connections need as many descriptors as the machine lets us have. */
static inline void raise_descriptor_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static inline void arm_timer(int fd, int64_t at)
{
    struct itimerspec when = {0};
    when.it_value.tv_sec = at / NANOS_PER_SECOND;
    when.it_value.tv_nsec = at % NANOS_PER_SECOND;
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL);
}

#endif
