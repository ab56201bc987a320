/* The mock provider of the bench: OpenAI chat completions on loopback, one thread, as cheap as it can be.
 *
 * POST anything          a plain answer (12 headers, about 1.35 KB with usage), or, when the body asks for a stream,
 *                        an SSE stream: --events events of about 0.3 KB, --gap-ms apart, the usage event where the
 *                        body asked for it, [DONE].
 * GET /mock/served       what was served since the start, as JSON: the truth that the gateway's books are held against.
 *
 * A plain answer counts as served when it is written, a stream when its [DONE] is. The token counts differ from call to
 * call, so that a gateway which loses one call and doubles another does not come out even.
 *
 * Usage: mock [--port P] [--events 50] [--gap-ms 20] [--life-s 3600]; prints the port it listens on.
 */
#include "wire.h"

#define IN_MAX (1 << 20)
#define OUT_MAX (1 << 20)
#define EVENTS_PER_WAIT 512

struct connection {
    int fd;
    bool dead;             /* closed while it waits in the queue of streams; freed when its turn comes */
    bool writing;          /* epoll watches for room to write */
    char *in;
    size_t in_bytes, in_room;
    char *out;
    size_t out_bytes, out_sent, out_room;
    /* The running stream, if any. */
    bool streaming, usage_wanted;
    long events_left;
    int prompt_tokens, completion_tokens;
    int64_t due;
    struct connection *next;
};

static struct {
    long requests, plain, streams, events, prompt_tokens, completion_tokens, cut;
} served;

static int loop, timer;
static long events_per_stream;
static int64_t gap_nanos;

/* Streams wait here for their next event. All have the same gap, so that first in is first due: a queue is enough. */
static struct connection *queue_head, *queue_tail;

static char plain_answer[4096];
static size_t plain_bytes;
static char *plain_prompt, *plain_completion, *plain_total;
static char event_chunk[1024];
static size_t event_bytes;
static char *event_sent;

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\n"
    "date: Thu, 01 Oct 2026 00:00:00 GMT\r\n"
    "content-type: text/event-stream; charset=utf-8\r\n"
    "transfer-encoding: chunked\r\n"
    "cache-control: no-cache\r\n"
    "openai-processing-ms: 12\r\n"
    "openai-version: 2020-10-01\r\n"
    "x-request-id: req_0123456789abcdef0123456789abcdef\r\n"
    "strict-transport-security: max-age=31536000\r\n"
    "\r\n";

/* Numbers stand in fields of fixed width, padded with blanks (which JSON allows), so that answers are patched in place. */
static void put_number(char *field, int value)
{
    char digits[16];
    snprintf(digits, sizeof digits, "%6d", value);
    memcpy(field, digits, 6);
}

static void prepare_plain(void)
{
    char text[901];
    for (int i = 0; i < 900; i++)
        text[i] = i % 7 == 6 ? ' ' : 'a' + i % 26;
    text[900] = 0;
    char body[2048];
    int n = snprintf(
        body, sizeof body,
        "{\"id\":\"chatcmpl-bench0123456789\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":\"bench-model\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null},"
        "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":      ,\"completion_tokens\":      ,"
        "\"total_tokens\":      ,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0}},\"system_fingerprint\":\"fp_bench\"}",
        text);
    plain_bytes = (size_t)snprintf(
        plain_answer, sizeof plain_answer,
        "HTTP/1.1 200 OK\r\n"
        "date: Thu, 01 Oct 2026 00:00:00 GMT\r\n"
        "content-type: application/json\r\n"
        "content-length: %d\r\n"
        "access-control-expose-headers: X-Request-ID\r\n"
        "openai-organization: bench\r\n"
        "openai-processing-ms: 12\r\n"
        "openai-version: 2020-10-01\r\n"
        "x-ratelimit-limit-requests: 100000\r\n"
        "x-ratelimit-remaining-requests: 99999\r\n"
        "x-ratelimit-reset-requests: 1ms\r\n"
        "x-request-id: req_0123456789abcdef0123456789abcdef\r\n"
        "strict-transport-security: max-age=31536000\r\n"
        "\r\n%s",
        n, body);
    plain_prompt = strstr(plain_answer, "\"prompt_tokens\":") + strlen("\"prompt_tokens\":");
    plain_completion = strstr(plain_answer, "\"completion_tokens\":") + strlen("\"completion_tokens\":");
    plain_total = strstr(plain_answer, "\"total_tokens\":") + strlen("\"total_tokens\":");
}

static void prepare_event(void)
{
    char data[512];
    int n = snprintf(data, sizeof data,
                     "data: {\"id\":\"chatcmpl-bench0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
                     "\"model\":\"bench-model\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\","
                     "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}],"
                     "\"sent_ns\":                   }\n\n");
    event_bytes = (size_t)snprintf(event_chunk, sizeof event_chunk, "%x\r\n%s\r\n", n, data);
    event_sent = strstr(event_chunk, "\"sent_ns\":") + strlen("\"sent_ns\":");
}

/* Each event says when it left, on the one clock of this machine: the reader learns how long it was under way. */
static void stamp_event(void)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%19lld", (long long)now_nanos());
    memcpy(event_sent, digits, 19);
    served.events++;
}

static void watch(struct connection *c, bool writing)
{
    c->writing = writing;
    struct epoll_event e = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &e);
}

static void drop(struct connection *c)
{
    if (c->dead)
        return;
    close(c->fd);
    c->dead = true;
    if (c->streaming)
        served.cut++; /* still in the queue: pump() frees it */
    else {
        free(c->in);
        free(c->out);
        free(c);
    }
}

/* Write now what the socket takes, keep the rest. False when the connection was dropped. */
static bool send_bytes(struct connection *c, const char *bytes, size_t n)
{
    size_t done = 0;
    if (!c->writing) {
        ssize_t w = send(c->fd, bytes, n, MSG_NOSIGNAL);
        if (w < 0 && errno != EAGAIN)
            return drop(c), false;
        done = w < 0 ? 0 : (size_t)w;
    }
    if (done == n)
        return true;
    if (c->out_bytes + (n - done) > OUT_MAX)
        return drop(c), false;
    if (c->out_bytes + (n - done) > c->out_room) {
        c->out_room = c->out_bytes + (n - done) + 4096;
        c->out = realloc(c->out, c->out_room);
    }
    memcpy(c->out + c->out_bytes, bytes + done, n - done);
    c->out_bytes += n - done;
    if (!c->writing)
        watch(c, true);
    return true;
}

static bool flush(struct connection *c)
{
    ssize_t w = send(c->fd, c->out + c->out_sent, c->out_bytes - c->out_sent, MSG_NOSIGNAL);
    if (w < 0)
        return errno == EAGAIN ? true : (drop(c), false);
    c->out_sent += (size_t)w;
    if (c->out_sent == c->out_bytes) {
        c->out_sent = c->out_bytes = 0;
        watch(c, false);
    }
    return true;
}

static void enqueue(struct connection *c)
{
    c->next = NULL;
    if (queue_tail)
        queue_tail->next = c;
    else {
        queue_head = c;
        arm_timer(timer, c->due);
    }
    queue_tail = c;
}

/* The usage event (where asked for), [DONE] and the last chunk leave in one write, as providers do it. */
static bool end_stream(struct connection *c)
{
    char last[1024], usage[512];
    int n = 0;
    if (c->usage_wanted) {
        int u = snprintf(usage, sizeof usage,
                         "data: {\"id\":\"chatcmpl-bench0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
                         "\"model\":\"bench-model\",\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,"
                         "\"total_tokens\":%d}}\n\n",
                         c->prompt_tokens, c->completion_tokens, c->prompt_tokens + c->completion_tokens);
        n = snprintf(last, sizeof last, "%x\r\n%s\r\n", u, usage);
        served.events++;
    }
    n += snprintf(last + n, sizeof last - (size_t)n, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    c->streaming = false;
    served.requests++;
    served.streams++;
    served.prompt_tokens += c->prompt_tokens;
    served.completion_tokens += c->completion_tokens;
    return send_bytes(c, last, (size_t)n);
}

static bool answer_plain(struct connection *c, int prompt, int completion)
{
    put_number(plain_prompt, prompt);
    put_number(plain_completion, completion);
    put_number(plain_total, prompt + completion);
    served.requests++;
    served.plain++;
    served.prompt_tokens += prompt;
    served.completion_tokens += completion;
    return send_bytes(c, plain_answer, plain_bytes);
}

static bool answer_served(struct connection *c)
{
    char body[512], reply[1024];
    int n = snprintf(body, sizeof body,
                     "{\"requests\":%ld,\"plain\":%ld,\"streams\":%ld,\"events\":%ld,\"prompt_tokens\":%ld,"
                     "\"completion_tokens\":%ld,\"cut\":%ld}\n",
                     served.requests, served.plain, served.streams, served.events, served.prompt_tokens,
                     served.completion_tokens, served.cut);
    n = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", n,
                 body);
    return send_bytes(c, reply, (size_t)n);
}

/* The body's length as the head tells it; -1 where it tells none. A proxy may send any capitals. */
static long content_length(const char *head, const char *end)
{
    for (const char *line = head; line < end;) {
        const char *stop = memmem(line, (size_t)(end - line), "\r\n", 2);
        if (stop == NULL)
            stop = end;
        if (stop - line > 15 && strncasecmp(line, "content-length:", 15) == 0)
            return strtol(line + 15, NULL, 10);
        line = stop + 2;
    }
    return -1;
}

static bool says(const char *body, size_t n, const char *name, const char *value)
{
    const char *p = memmem(body, n, name, strlen(name));
    if (p == NULL)
        return false;
    const char *end = body + n;
    for (p += strlen(name); p < end && (*p == ' ' || *p == ':'); p++)
        ;
    return (size_t)(end - p) >= strlen(value) && memcmp(p, value, strlen(value)) == 0;
}

/* Answer one request. False when the connection was dropped. */
static bool answer(struct connection *c, const char *head, const char *body, size_t body_bytes)
{
    if (strncmp(head, "GET /mock/served ", 17) == 0)
        return answer_served(c);
    int prompt = (int)(body_bytes / 4) + (int)(served.requests % 97);
    int completion = 20 + (int)(served.requests % 181);
    /* The option stands near the end of the body in practice; the top-level name cannot be part of another string here
     * because the load generator writes the bodies. */
    if (!says(body, body_bytes, "\"stream\"", "true"))
        return answer_plain(c, prompt, completion);
    c->streaming = true;
    c->usage_wanted = says(body, body_bytes, "\"include_usage\"", "true");
    c->prompt_tokens = prompt;
    c->completion_tokens = (int)events_per_stream;
    c->events_left = events_per_stream - 1;
    /* Queued before anything is written: drop() then always finds a stream that the queue will free. */
    c->due = now_nanos() + gap_nanos;
    enqueue(c);
    /* The first event leaves with the head and at once: only so does every stream in the queue wait for one gap. */
    char first[sizeof STREAM_HEAD + sizeof event_chunk];
    stamp_event();
    memcpy(first, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    memcpy(first + sizeof STREAM_HEAD - 1, event_chunk, event_bytes);
    return send_bytes(c, first, sizeof STREAM_HEAD - 1 + event_bytes);
}

/* Take every whole request out of what has arrived; while a stream runs, the next one waits. */
static void take_requests(struct connection *c)
{
    while (!c->streaming && c->in_bytes > 0) {
        char *end = memmem(c->in, c->in_bytes, "\r\n\r\n", 4);
        if (end == NULL)
            return;
        size_t head_bytes = (size_t)(end - c->in) + 4;
        long length = content_length(c->in, end);
        size_t body_bytes = length < 0 ? 0 : (size_t)length;
        if (head_bytes + body_bytes > IN_MAX) {
            drop(c);
            return;
        }
        if (c->in_bytes < head_bytes + body_bytes)
            return;
        if (!answer(c, c->in, c->in + head_bytes, body_bytes))
            return;
        c->in_bytes -= head_bytes + body_bytes;
        memmove(c->in, c->in + head_bytes + body_bytes, c->in_bytes);
    }
}

static void receive(struct connection *c)
{
    if (c->in_room - c->in_bytes < 4096) {
        if (c->in_room >= IN_MAX) {
            drop(c);
            return;
        }
        c->in_room = c->in_room ? c->in_room * 2 : 16384;
        c->in = realloc(c->in, c->in_room);
    }
    ssize_t r = recv(c->fd, c->in + c->in_bytes, c->in_room - c->in_bytes, 0);
    if (r <= 0) {
        if (r == 0 || errno != EAGAIN)
            drop(c);
        return;
    }
    c->in_bytes += (size_t)r;
    take_requests(c);
}

/* Send the next event of every stream that is due. */
static void pump(void)
{
    int64_t now = now_nanos();
    while (queue_head && queue_head->due <= now) {
        struct connection *c = queue_head;
        queue_head = c->next;
        if (queue_head == NULL)
            queue_tail = NULL;
        if (c->dead) {
            free(c->in);
            free(c->out);
            free(c);
            continue;
        }
        if (c->events_left-- > 0) {
            c->due += gap_nanos;
            enqueue(c);
            stamp_event();
            send_bytes(c, event_chunk, event_bytes);
        } else if (end_stream(c))
            take_requests(c);
    }
    if (queue_head)
        arm_timer(timer, queue_head->due);
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e);
    }
}

static int listen_on(long port)
{
    int fd = tcp_socket(), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = loopback(port);
    socklen_t size = sizeof a;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096) || getsockname(fd, (struct sockaddr *)&a, &size))
        die("listen");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    events_per_stream = option_number(argc, argv, "--events", 50);
    if (events_per_stream < 1)
        die("--events must be at least 1");
    gap_nanos = option_number(argc, argv, "--gap-ms", 20) * NANOS_PER_MILLI;
    alarm((unsigned)option_number(argc, argv, "--life-s", 3600)); /* never outlives a bench that died */
    raise_descriptor_limit();
    prepare_plain();
    prepare_event();
    loop = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = listen_on(option_number(argc, argv, "--port", 0));
    /* The listener and the timer are told apart from connections by the address of their own variable. */
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &listener};
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &e);
    e.data.ptr = &timer;
    epoll_ctl(loop, EPOLL_CTL_ADD, timer, &e);
    struct epoll_event ready[EVENTS_PER_WAIT];
    for (;;) {
        int n = wait_awake(loop, ready, EVENTS_PER_WAIT, -1);
        bool due = false;
        for (int i = 0; i < n; i++) {
            void *who = ready[i].data.ptr;
            if (who == &listener)
                accept_all(listener);
            else if (who == &timer) {
                uint64_t ticks;
                due = read(timer, &ticks, sizeof ticks) > 0 || due;
            } else {
                struct connection *c = who;
                if ((ready[i].events & EPOLLOUT) && !flush(c))
                    continue;
                if (ready[i].events & ~EPOLLOUT)
                    receive(c);
            }
        }
        if (due)
            pump();
    }
}
