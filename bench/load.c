/* The load generator of the bench: one thread, loopback only, bounded in time, one JSON object as its result.
 *
 * Three ways to load:
 *   closed loop (default)   every connection sends its next request when the last one was answered;
 *   --rate R                R requests a second on a fixed schedule, whoever is late: latency counts from the moment
 *                           a request *should* have been sent, so that a stall is charged to everyone it delayed;
 *   --stream                every connection holds one SSE stream after another; the first ones start --ramp-ms apart.
 *
 * What is measured starts after --warm-s and lasts --seconds; then running requests may finish, so that every call that
 * was sent has ended when the books are compared. Figures "_us" are microseconds.
 *
 * Every percentile is told twice: over all, and as "undisturbed_…" over what was due in no run of the kernel threads of
 * --watch (reclaim.h), nor in the --drain-ms after one; "left_out_…" is the part that was, in per cent. A percentile of
 * fewer than 100 is null.
 *
 * With --vary no two requests have the same body.
 *
 * Usage: load --port P [--path /v1/chat/completions] [--key K] [--model M] [--connections 32] [--seconds 3]
 *             [--warm-ms 500] [--body 1024] [--vary] [--rate R | --stream [--ramp-ms 900] [--no-usage]]
 *             [--watch TID,… [--drain-ms 10]]
 */
#include "reclaim.h"
#include "wire.h"

#define HEAD_MAX 16384
#define EVENTS_PER_WAIT 512
#define CALM_MIN 100
#define WAIT_MILLIS_MAX 2 /* so that looks at the reclaim are never far apart */
#define FINISH_NANOS (10 * NANOS_PER_SECOND)

enum phase { IDLE, CONNECTING, HEAD, BODY, CHUNK_SIZE, CHUNK_SKIP_LINE, CHUNK_DATA, CHUNK_END, LAST_LINE };

struct connection {
    int fd;
    enum phase phase;
    bool wants_to_send; /* connected for a request that waits to be written */
    size_t sent;        /* bytes of the request written so far */
    char head[HEAD_MAX];
    size_t head_bytes;
    int status;
    bool closing; /* the answer said connection: close */
    size_t left;  /* bytes left of the body or of the chunk */
    size_t chunk;
    int64_t due;  /* when the request was scheduled, or sent in a closed loop */
    int64_t first_event;
    long events;
    char last_byte;
    bool done_seen;
    char tail[16]; /* the last bytes of the stream, where [DONE] must stand */
    size_t tail_bytes;
};

struct sample {
    int64_t from, took;
};

struct samples {
    struct sample *all;
    size_t n, room;
};

static int loop, timer;
static long port, rate;
static bool streams, vary;
static char *request;
static size_t request_bytes;
/* With --vary: where the number of a request stands in its body, and the last one. */
static char *number_at;
static unsigned long number;
static struct connection *connections;
static size_t connections_n;
static struct connection **idle;
static size_t idle_n;
static int64_t measure_from, measure_to;
static struct samples latency, first_event, event_delay;
static long ok, non200, errors, incomplete, events, reconnects, measured_ok, measured_events, late_max;
static long running;
static int first_bad_status;

static void keep(struct samples *s, int64_t from, int64_t to)
{
    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 65536;
        s->all = realloc(s->all, s->room * sizeof *s->all);
    }
    s->all[s->n++] = (struct sample){from, to - from};
}

static int by_time_taken(const void *a, const void *b)
{
    int64_t x = ((const struct sample *)a)->took, y = ((const struct sample *)b)->took;
    return (x > y) - (x < y);
}

/* In microseconds; the samples must be sorted. */
static double percentile(const struct samples *s, double p)
{
    if (s->n == 0)
        return 0;
    size_t i = (size_t)(p * (double)s->n);
    return (double)s->all[i < s->n ? i : s->n - 1].took / 1000.0;
}

static bool measured(int64_t at)
{
    return at >= measure_from && at < measure_to;
}

static void build_request(const char *path, const char *key, const char *model, long body_bytes, bool usage_wanted)
{
    char *body = malloc((size_t)body_bytes + 1024);
    int n = sprintf(body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"", model);
    const char *tail = streams ? (usage_wanted ? "\"}],\"max_tokens\":256,\"stream\":true,\"stream_options\":{\"include_usage\":true}}"
                                               : "\"}],\"max_tokens\":256,\"stream\":true}")
                               : "\"}],\"max_tokens\":256,\"temperature\":0.2}";
    int number_offset = n;
    n += sprintf(body + n, "%012lu ", number);
    for (long i = 0; n + (long)strlen(tail) < body_bytes; i++)
        body[n++] = i % 6 == 5 ? ' ' : (char)('a' + i % 26);
    n += sprintf(body + n, "%s", tail);
    request = malloc((size_t)n + 1024);
    request_bytes = (size_t)sprintf(request,
                                    "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%ld\r\nauthorization: Bearer %s\r\n"
                                    "content-type: application/json\r\naccept: application/json\r\n"
                                    "user-agent: OpenAI/Python 3.52.0\r\nx-stainless-lang: python\r\n"
                                    "content-length: %d\r\n\r\n",
                                    path, port, key, n);
    memcpy(request + request_bytes, body, (size_t)n);
    number_at = request + request_bytes + number_offset;
    request_bytes += (size_t)n;
    free(body);
}

static void watch(struct connection *c, uint32_t what, int how)
{
    struct epoll_event e = {.events = what, .data.ptr = c};
    epoll_ctl(loop, how, c->fd, &e);
}

static void reconnect(struct connection *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        reconnects++;
    }
    c->fd = tcp_socket();
    struct sockaddr_in a = loopback(port);
    connect(c->fd, (struct sockaddr *)&a, sizeof a);
    c->phase = CONNECTING;
    watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void next_request(struct connection *c);

/* The request of `c` ended, well or not. */
static void finish(struct connection *c, bool well)
{
    int64_t now = now_nanos();
    running--;
    if (!well)
        errors++;
    else if (c->status != 200) {
        if (non200++ == 0)
            first_bad_status = c->status;
    } else {
        ok++;
        if (streams && !c->done_seen)
            incomplete++;
        if (measured(now)) {
            measured_ok++;
            if (!streams || measured(c->due))
                keep(&latency, c->due, now);
        }
    }
    if (streams && c->first_event && measured(c->due))
        keep(&first_event, c->due, c->first_event);
    c->phase = IDLE;
    if (!well || c->closing)
        reconnect(c);
    if (rate)
        idle[idle_n++] = c;
    else if (now < measure_to)
        next_request(c);
}

static void write_request(struct connection *c)
{
    ssize_t w = send(c->fd, request + c->sent, request_bytes - c->sent, MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN) {
        c->wants_to_send = false;
        finish(c, false);
        return;
    }
    if (w > 0)
        c->sent += (size_t)w;
    if (c->sent == request_bytes) {
        c->wants_to_send = false;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    } else
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
}

/* Each request another one. What is half sent keeps its number or gets the next one's: it is another request too. */
static void renumber(void)
{
    char digits[16];
    sprintf(digits, "%012lu", ++number);
    memcpy(number_at, digits, 12);
}

static void start(struct connection *c, int64_t due)
{
    if (vary)
        renumber();
    running++;
    c->due = due;
    c->sent = c->head_bytes = c->tail_bytes = 0;
    c->first_event = 0;
    c->events = 0;
    c->last_byte = 0;
    c->done_seen = c->closing = false;
    c->status = 0;
    c->wants_to_send = true;
    if (c->phase != CONNECTING) {
        c->phase = HEAD;
        write_request(c);
    }
}

static void next_request(struct connection *c)
{
    start(c, now_nanos());
}

static bool header(const char *head, const char *name, const char **value)
{
    size_t n = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':') {
            for (*value = line + 3 + n; **value == ' '; (*value)++)
                ;
            return true;
        }
    return false;
}

/* Read the head once it is whole; says where the body starts. False when it cannot be understood. */
static bool read_head(struct connection *c)
{
    const char *value;
    if (sscanf(c->head, "HTTP/1.1 %d", &c->status) != 1)
        return false;
    c->closing = header(c->head, "connection", &value) && strncasecmp(value, "close", 5) == 0;
    if (header(c->head, "content-length", &value)) {
        c->left = strtoul(value, NULL, 10);
        c->phase = BODY;
        return true;
    }
    c->chunk = 0;
    c->phase = CHUNK_SIZE;
    return header(c->head, "transfer-encoding", &value) && strncasecmp(value, "chunked", 7) == 0;
}

/* The mock writes into each event when it left; one whose stamp is split between two reads is not sampled. */
static void see_delays(const char *bytes, size_t n, int64_t now)
{
    static const char NAME[] = "\"sent_ns\":";
    const char *end = bytes + n;
    for (const char *p = bytes; (p = memmem(p, (size_t)(end - p), NAME, sizeof NAME - 1)) != NULL;) {
        p += sizeof NAME - 1;
        if (end - p < 20)
            return;
        keep(&event_delay, strtoll(p, NULL, 10), now);
    }
}

/* Events end with an empty line; the very first byte of the body is the arrival of the first event. */
static void see_stream_bytes(struct connection *c, const char *bytes, size_t n)
{
    int64_t now = now_nanos();
    if (c->first_event == 0)
        c->first_event = now;
    long seen = 0;
    if (n && c->last_byte == '\n' && bytes[0] == '\n')
        seen++;
    for (const char *p = bytes; (p = memchr(p, '\n', (size_t)(bytes + n - p))) != NULL; p++)
        if (p + 1 < bytes + n && p[1] == '\n')
            seen++;
    c->last_byte = bytes[n - 1];
    c->events += seen;
    events += seen;
    if (measured(now)) {
        measured_events += seen;
        see_delays(bytes, n, now);
    }
    size_t take = n < sizeof c->tail ? n : sizeof c->tail;
    size_t stay = sizeof c->tail - take < c->tail_bytes ? sizeof c->tail - take : c->tail_bytes;
    memmove(c->tail, c->tail + c->tail_bytes - stay, stay);
    memcpy(c->tail + stay, bytes + n - take, take);
    c->tail_bytes = stay + take;
}

static int hex(char x)
{
    return x >= '0' && x <= '9' ? x - '0' : (x | 32) >= 'a' && (x | 32) <= 'f' ? (x | 32) - 'a' + 10 : -1;
}

/* Take `n` bytes of an answer. Returns false when they are not a valid answer or come unasked. */
static bool take(struct connection *c, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t rest = n - i, step;
        switch (c->phase) {
        case IDLE:
        case CONNECTING:
            return false;
        case HEAD:
            if (c->head_bytes + 1 >= HEAD_MAX)
                return false;
            c->head[c->head_bytes++] = bytes[i++];
            if (c->head_bytes >= 4 && memcmp(c->head + c->head_bytes - 4, "\r\n\r\n", 4) == 0) {
                c->head[c->head_bytes] = 0;
                if (!read_head(c))
                    return false;
                if (c->phase == BODY && c->left == 0) {
                    finish(c, true);
                    return i == n;
                }
            }
            break;
        case BODY:
            step = rest < c->left ? rest : c->left;
            c->left -= step;
            i += step;
            if (c->left == 0) {
                finish(c, true);
                return i == n;
            }
            break;
        case CHUNK_SIZE:
            if (hex(bytes[i]) >= 0)
                c->chunk = c->chunk * 16 + (size_t)hex(bytes[i++]);
            else
                c->phase = CHUNK_SKIP_LINE;
            break;
        case CHUNK_SKIP_LINE:
            if (bytes[i++] == '\n') {
                c->left = c->chunk;
                c->phase = c->chunk ? CHUNK_DATA : LAST_LINE;
            }
            break;
        case CHUNK_DATA:
            step = rest < c->left ? rest : c->left;
            see_stream_bytes(c, bytes + i, step);
            c->left -= step;
            i += step;
            if (c->left == 0)
                c->phase = CHUNK_END;
            break;
        case CHUNK_END:
            if (bytes[i++] == '\n') {
                c->chunk = 0;
                c->phase = CHUNK_SIZE;
            }
            break;
        case LAST_LINE:
            if (bytes[i++] == '\n') {
                c->done_seen = c->tail_bytes >= 14 && memcmp(c->tail + c->tail_bytes - 14, "data: [DONE]\n\n", 14) == 0;
                finish(c, true);
                return i == n;
            }
            break;
        }
    }
    return true;
}

static void on_ready(struct connection *c, uint32_t what)
{
    static char bytes[1 << 16];
    if (c->phase == CONNECTING) {
        int problem = 0;
        socklen_t size = sizeof problem;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem) {
            errno = problem;
            die("connect");
        }
        c->phase = HEAD;
        if (!c->wants_to_send) {
            c->phase = IDLE;
            watch(c, EPOLLIN, EPOLL_CTL_MOD);
            return;
        }
        write_request(c);
        return;
    }
    if ((what & EPOLLOUT) && c->wants_to_send) {
        write_request(c);
        return;
    }
    ssize_t r = recv(c->fd, bytes, sizeof bytes, 0);
    if (r < 0 && errno == EAGAIN)
        return;
    if (r > 0 && take(c, bytes, (size_t)r))
        return;
    /* Closed, reset or not understood: an idle connection may close, a running request must not. */
    if (c->phase == IDLE)
        reconnect(c);
    else
        finish(c, false);
}

/* The next moments at which something must be started: the schedule of --rate, or the ramp of --stream. */
static int64_t start_at;
static long started;
static double spacing;

static int64_t due_of(long i)
{
    return start_at + (int64_t)((double)i * spacing);
}

static void start_what_is_due(void)
{
    int64_t now = now_nanos();
    if (rate) {
        while (idle_n && due_of(started) <= now && due_of(started) < measure_to) {
            start(idle[--idle_n], due_of(started));
            started++;
        }
        long behind = (long)((double)(now - start_at) / spacing) - started;
        if (behind > late_max && now < measure_to)
            late_max = behind;
    } else
        while (started < (long)connections_n && due_of(started) <= now)
            next_request(&connections[started++]);
    bool more = rate ? due_of(started) < measure_to : started < (long)connections_n;
    /* With no idle connection the next answer calls us again; no need to wake up for it. */
    if (more && (!rate || idle_n))
        arm_timer(timer, due_of(started));
}

static void run(void)
{
    struct epoll_event ready[EVENTS_PER_WAIT];
    start_what_is_due();
    for (;;) {
        int64_t now = now_nanos();
        if (now >= measure_to && (running == 0 || now >= measure_to + FINISH_NANOS))
            break;
        reclaim_look(now);
        int n = wait_awake(loop, ready, EVENTS_PER_WAIT, WAIT_MILLIS_MAX);
        bool due = false;
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr == &timer) {
                uint64_t ticks;
                due = read(timer, &ticks, sizeof ticks) > 0 || due;
            } else
                on_ready(ready[i].data.ptr, ready[i].events);
        }
        if (due || rate)
            start_what_is_due();
    }
    errors += running;
}

/* The percentiles of `s`, over all and over what was not disturbed; it ends with a comma. */
static void print_percentiles(const char *name, struct samples *s, int64_t drain)
{
    static const struct {
        const char *name;
        double p;
    } TOLD[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    struct samples calm = {.n = 0};
    if (s->n)
        qsort(s->all, s->n, sizeof *s->all, by_time_taken);
    for (size_t i = 0; i < s->n; i++)
        if (!reclaim_met(s->all[i].from, drain))
            keep(&calm, s->all[i].from, s->all[i].from + s->all[i].took);
    for (size_t i = 0; i < sizeof TOLD / sizeof *TOLD; i++)
        printf(calm.n < CALM_MIN ? "\"%s%s_us\":%.1f,\"undisturbed_%s%s_us\":null,"
                                 : "\"%s%s_us\":%.1f,\"undisturbed_%s%s_us\":%.1f,",
               name, TOLD[i].name, percentile(s, TOLD[i].p), name, TOLD[i].name, percentile(&calm, TOLD[i].p));
    printf("\"left_out_%spercent\":%.2f,", name, s->n ? 100.0 * (double)(s->n - calm.n) / (double)s->n : 0.0);
    free(calm.all);
}

static void print_result(double seconds, int64_t began, int64_t drain)
{
    printf("{\"seconds\":%.3f,\"ok\":%ld,\"non200\":%ld,\"first_bad_status\":%d,\"errors\":%ld,\"incomplete\":%ld,"
           "\"reconnects\":%ld,\"late_max\":%ld,\"elapsed_s\":%.3f,\"rps\":%.1f,",
           seconds, ok, non200, first_bad_status, errors, incomplete, reconnects, late_max,
           (double)(now_nanos() - began) / 1e9, (double)measured_ok / seconds);
    print_percentiles("", &latency, drain);
    print_percentiles("ttft_", &first_event, drain);
    print_percentiles("event_", &event_delay, drain);
    printf("\"reclaim_ms\":%.3f,\"events\":%ld,\"events_per_s\":%.1f}\n", (double)reclaim_ran / NANOS_PER_MILLI, events,
           (double)measured_events / seconds);
}

int main(int argc, char **argv)
{
    port = option_number(argc, argv, "--port", 0);
    rate = option_number(argc, argv, "--rate", 0);
    streams = option_given(argc, argv, "--stream");
    vary = option_given(argc, argv, "--vary");
    connections_n = (size_t)option_number(argc, argv, "--connections", 32);
    long seconds = option_number(argc, argv, "--seconds", 3), warm_ms = option_number(argc, argv, "--warm-ms", 500);
    if (port == 0 || connections_n == 0 || seconds == 0) {
        fprintf(stderr, "load: --port, and at least one connection and one second, are needed\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    /* Of another run none is the same either. */
    number = (unsigned long)(now_nanos() / 1000 % 1000000000000);
    build_request(option(argc, argv, "--path", "/v1/chat/completions"), option(argc, argv, "--key", "none"),
                  option(argc, argv, "--model", "bench-model"), option_number(argc, argv, "--body", 1024),
                  !option_given(argc, argv, "--no-usage"));
    loop = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &timer};
    epoll_ctl(loop, EPOLL_CTL_ADD, timer, &e);
    connections = calloc(connections_n, sizeof *connections);
    idle = calloc(connections_n, sizeof *idle);
    for (size_t i = 0; i < connections_n; i++) {
        connections[i].fd = -1;
        reconnect(&connections[i]);
        if (rate)
            idle[idle_n++] = &connections[i];
    }
    reclaim_watch(option(argc, argv, "--watch", ""));
    int64_t began = now_nanos();
    start_at = began + 20 * NANOS_PER_MILLI; /* connections are made by then */
    spacing = rate     ? (double)NANOS_PER_SECOND / (double)rate
              : streams ? (double)(option_number(argc, argv, "--ramp-ms", 900) * NANOS_PER_MILLI) / (double)connections_n
                        : 0;
    measure_from = start_at + warm_ms * NANOS_PER_MILLI;
    measure_to = measure_from + seconds * NANOS_PER_SECOND;
    alarm((unsigned)(seconds + warm_ms / 1000 + 30));
    run();
    print_result((double)seconds, began, option_number(argc, argv, "--drain-ms", 10) * NANOS_PER_MILLI);
    return 0;
}
