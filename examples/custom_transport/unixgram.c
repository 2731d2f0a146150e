/* SPDX-License-Identifier: MIT */
/*
 * unixgram.c - a backend of your own, in one file, on <psbus.h> alone: unixgram:///DIRECTORY, a bus of Unix datagram sockets.
 *
 * A bus is a directory. Each member has a socket in it, named ID, sixteen hexadecimal digits, and a file ID.filters with a line
 * for each subscription. To publish is to list the directory, to read the filters, and to send a datagram to each member that
 * wants the topic. So to subscribe is a barrier, and nobody is woken by what he does not want. It is simple and not fast.
 *
 * There is no lock: a socket that refuses is a dead member's, and whoever meets one removes it. Who leaves tries to remove the
 * directory, which works for the last one.
 *
 * What is weaker than in shm, and left out of `can` at the end: a member whose queue is full (net.unix.max_dgram_qlen, often 10
 * messages) misses the message; the next one that reaches it tells how many it missed. Nobody is refused with PS_EAGAIN, so
 * block= and evict= mean nothing. No loans, no list of members, no observers. A forked child that neither closes the handle nor
 * execs keeps its parent's socket alive.
 */
#define _GNU_SOURCE

#include <psbus.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define UNIXGRAM_MAGIC    0x31677875u
#define UNIXGRAM_DATAGRAM (128 * 1024)  /* the largest one, header and topic included */
#define UNIXGRAM_MESSAGE  (UNIXGRAM_DATAGRAM - sizeof(struct unixgram_header) - PS_TOPIC_MAX - 1)
#define UNIXGRAM_TRIES    100           /* of 1 ms each, while others take the directory away under us */

/* What travels: this, the data, the topic with its NUL. 32 bytes, so that the data are aligned where they arrive. */
struct unixgram_header {
    uint32_t magic;
    uint32_t topic_len;                 /* 0: no message, but a reader's mark to itself; sequence says which */
    uint64_t publisher, sequence;
    uint64_t lost;                      /* messages of this publisher that this member missed since the last one it got */
};

struct unixgram {
    ps_host *host;
    DIR     *directory;
    int      socket, event, epoll;      /* messages come; wake(); both of them */
    int      filters;                   /* the own file */
    int      echo;
    uint64_t id;                        /* the name in the directory, and what others see as publisher */
    size_t   depth;                     /* messages a queue holds */
    char     path[4096];
    char    *own;                       /* what the own file says; subscribe's and unsubscribe's */
    size_t   own_size;
    /* The dispatching thread's; stats reads the counters. */
    unsigned char *buffer;              /* the last datagram */
    int      marked;
    uint64_t mark;                      /* number of the last mark */
    size_t   budget;                    /* datagrams the dispatch may still take, if its mark could not be sent */
    _Atomic uint64_t lost, garbage;
    atomic_int polled;                  /* somebody asked for fd */
    /* Publishing threads share these. Nobody waits while he holds the lock. */
    pthread_mutex_t lock;
    char    *text;                      /* another member's filters */
    size_t   text_room;
    uint64_t sequence;
    struct { uint64_t id, count; } missed[PS_MEMBERS_MAX];      /* what goes into the next header for that member */
};

static int unixgram_fail(struct unixgram *u, int code, const char *what)
{
    return u->host->fail(u->host, code, "%s: %s: %s", u->path, what, strerror(errno));
}

/* ------------------------------------------------------------------ members */

/* Through the descriptor of the directory the path of a socket always fits, however long the directory's own is. */
static struct sockaddr_un unixgram_path(struct unixgram *u, const char *before, uint64_t id, const char *after)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s%016llx%s", dirfd(u->directory), before,
             (unsigned long long)id, after);
    return address;
}

static void unixgram_unlink(struct unixgram *u, const char *before, uint64_t id, const char *after)
{
    struct sockaddr_un address = unixgram_path(u, before, id, after);

    (void)unlink(address.sun_path);
}

/* The socket last: as long as it is there, somebody will find it dead and remove the rest. */
static void unixgram_remove(struct unixgram *u, uint64_t id)
{
    unixgram_unlink(u, "", id, ".new");
    unixgram_unlink(u, "", id, ".filters");
    unixgram_unlink(u, "", id, "");
}

/* The next member in the listing, 0 if there is none. joining: it has no name yet. */
static uint64_t unixgram_listed(struct unixgram *u, int *joining)
{
    struct dirent *entry;

    while ((entry = readdir(u->directory)) != NULL) {
        *joining = entry->d_name[0] == '.';
        if (strlen(entry->d_name + *joining) == 16 && strspn(entry->d_name + *joining, "0123456789abcdef") == 16)
            return strtoull(entry->d_name + *joining, NULL, 16);
    }
    return 0;
}

/* Removes what members that were killed have left; how many others live. */
static int unixgram_sweep(struct unixgram *u)
{
    int alive = 0, joining;
    uint64_t id;

    rewinddir(u->directory);
    while ((id = unixgram_listed(u, &joining)) != 0) {
        struct sockaddr_un address = unixgram_path(u, "", id, "");
        int probe = joining ? -1 : socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (joining)
            unixgram_unlink(u, ".", id, "");    /* if it was only slow, it tries again under another name */
        if (probe >= 0 && id != u->id && connect(probe, (struct sockaddr *)&address, sizeof address) == 0)
            alive++;
        else if (probe >= 0 && id != u->id && errno == ECONNREFUSED)
            unixgram_remove(u, id);
        if (probe >= 0)
            close(probe);
    }
    return alive;
}

/* Under the lock: does a filter of this member let the topic through? 1, 0 or an error. */
static int unixgram_wants(struct unixgram *u, uint64_t id, const ps_topic *topic)
{
    struct sockaddr_un address = unixgram_path(u, "", id, ".filters");
    int fd = open(address.sun_path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    size_t size = 0;
    ssize_t got = 0;
    char *line, *end;

    if (fd < 0)
        return errno == ENOENT ? 0 : unixgram_fail(u, PS_ESYS, "opening filters");
    do {
        size += (size_t)got;
        if (size == u->text_room) {
            if ((line = realloc(u->text, u->text_room * 2 + 4096)) == NULL)
                break;
            u->text = line;
            u->text_room = u->text_room * 2 + 4096;
        }
    } while ((got = read(fd, u->text + size, u->text_room - size)) > 0);
    close(fd);
    if (got < 0)
        return unixgram_fail(u, PS_ESYS, "reading filters");
    if (size == u->text_room)
        return u->host->fail(u->host, PS_ENOMEM, "no memory for a member's filters");
    /* A last line without its end belongs to a subscribe that has not returned. */
    for (line = u->text; (end = memchr(line, '\n', (size_t)(u->text + size - line))) != NULL; line = end + 1) {
        *end = '\0';
        if (line[0] == '=' ? strcmp(line + 1, topic->text) == 0 : line[0] == '~' && ps_topic_match(line + 1, topic->text))
            return 1;
    }
    return 0;
}

/* ------------------------------------------------------------------ publish */

/* 0 or an errno. */
static int unixgram_send(struct unixgram *u, uint64_t id, const struct unixgram_header *header, const void *data, size_t size,
                         const char *topic)
{
    struct sockaddr_un address = unixgram_path(u, "", id, "");
    struct iovec part[3] = {
        { (void *)(uintptr_t)header, sizeof *header },
        { (void *)(uintptr_t)data, size },
        { (void *)(uintptr_t)topic, header->topic_len > 0 ? header->topic_len + 1 : 0 },
    };
    struct msghdr message = { .msg_name = &address, .msg_namelen = sizeof address, .msg_iov = part, .msg_iovlen = 3 };

    return sendmsg(u->socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ? 0 : errno;
}

/* What a member has missed: its entry, or a free one. Entries of members that have left are free. */
static uint64_t *unixgram_missed(struct unixgram *u, uint64_t id)
{
    size_t at = 0;

    while (at < PS_MEMBERS_MAX && u->missed[at].id != id)
        at++;
    for (size_t i = 0; at == PS_MEMBERS_MAX && i < PS_MEMBERS_MAX; i++) {
        struct sockaddr_un address = unixgram_path(u, "", u->missed[i].id, "");

        if (u->missed[i].count == 0 || access(address.sun_path, F_OK) < 0)
            at = i;
    }
    if (at == PS_MEMBERS_MAX)
        at = 0;                                 /* there are more members than a bus may have */
    if (u->missed[at].id != id) {
        u->missed[at].id = id;
        u->missed[at].count = 0;
    }
    return &u->missed[at].count;
}

/* Under the lock. How many want it; if send is set, they are sent it. */
static int unixgram_each(struct unixgram *u, const ps_topic *topic, const void *data, size_t size, int send)
{
    struct unixgram_header header = { UNIXGRAM_MAGIC, (uint32_t)topic->len, u->id, u->sequence, 0 };
    int wanted = 0, failed = 0, rc, joining;
    uint64_t id;

    rewinddir(u->directory);
    while ((id = unixgram_listed(u, &joining)) != 0) {
        if (joining || (id == u->id && !u->echo) || (rc = unixgram_wants(u, id, topic)) == 0)
            continue;
        if (rc < 0) {                           /* it may have wanted it: then it is told that it missed something */
            failed = rc;
            if (send)
                ++*unixgram_missed(u, id);
            continue;
        }
        if (send) {
            uint64_t *missed = unixgram_missed(u, id);

            header.lost = *missed;
            int error = unixgram_send(u, id, &header, data, size, topic->text);
            if (error == ECONNREFUSED || error == ENOENT) {     /* dead, or just gone */
                unixgram_remove(u, id);
                continue;
            }
            *missed = error == 0 ? 0 : *missed + 1;
        }
        wanted++;
    }
    if (send && wanted > 0)
        u->sequence++;
    return wanted > 0 ? wanted : failed;        /* an error beside somebody who got it is that member's alone */
}

/* No thread is cancelled in here, it would take the lock with it; the same below. */
static int unixgram_ask(struct unixgram *u, const ps_topic *topic, const void *data, size_t size, int send)
{
    int error = errno, result, cancel;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    pthread_mutex_lock(&u->lock);
    result = unixgram_each(u, topic, data, size, send);
    pthread_mutex_unlock(&u->lock);
    pthread_setcancelstate(cancel, &cancel);
    errno = error;
    return result;
}

static int unixgram_publish(void *state, const ps_topic *topic, const void *data, size_t size, int wait)
{
    struct unixgram *u = state;

    (void)wait;                         /* a full queue loses the message, so there is nothing to wait for */
    if (size > UNIXGRAM_MESSAGE)
        return u->host->fail(u->host, PS_EMSGSIZE, "%zu bytes, a datagram takes %zu", size, UNIXGRAM_MESSAGE);
    return unixgram_ask(u, topic, data, size, 1);
}

static int unixgram_wanted(void *state, const ps_topic *topic)
{
    return unixgram_ask(state, topic, NULL, 0, 0);
}

/* ------------------------------------------------------------------ subscribe */

static int unixgram_subscribe(void *state, const ps_filter *filter, uint32_t flags, int first)
{
    struct unixgram *u = state;
    char *larger = realloc(u->own, u->own_size + filter->len + 3);
    ssize_t len;

    (void)flags;
    (void)first;
    if (larger == NULL)
        return u->host->fail(u->host, PS_ENOMEM, "no memory for a filter");
    u->own = larger;
    len = sprintf(u->own + u->own_size, "%c%s\n", filter->wild ? '~' : '=', filter->text);
    if (pwrite(u->filters, u->own + u->own_size, (size_t)len, (off_t)u->own_size) != len)
        return unixgram_fail(u, PS_ESYS, "writing filters");    /* the next one is written over what there is of it */
    u->own_size += (size_t)len;
    return 0;
}

/* Writes the file anew beside the old one. If that fails the old one stays, and the core drops what comes in vain. */
static void unixgram_unsubscribe(void *state, const ps_filter *filter, uint32_t flags, int last, int idle)
{
    struct unixgram *u = state;
    struct sockaddr_un now = unixgram_path(u, "", u->id, ".filters"), next = unixgram_path(u, "", u->id, ".new");
    char *line = u->own, *end;
    size_t len = filter->len + 2;
    int fd = open(next.sun_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    (void)flags;
    (void)last;
    (void)idle;
    while ((end = memchr(line, '\n', (size_t)(u->own + u->own_size - line))) != line + len - 1 ||
           line[0] != (filter->wild ? '~' : '=') || memcmp(line + 1, filter->text, filter->len) != 0)
        line = end + 1;
    size_t before = (size_t)(line - u->own), after = u->own_size - before - len;
    if (fd >= 0 && pwrite(fd, u->own, before, 0) == (ssize_t)before &&
        pwrite(fd, line + len, after, (off_t)before) == (ssize_t)after && rename(next.sun_path, now.sun_path) == 0) {
        memmove(line, line + len, after);
        u->own_size -= len;
        close(u->filters);
        u->filters = fd;
    } else if (fd >= 0) {
        close(fd);
    }
}

/* ------------------------------------------------------------------ dispatch */

/* A queue in the kernel has no positions, so "what is there now" ends at a datagram that we send ourselves. If there is no
 * room for it, there is as much as fits. */
static int unixgram_begin(void *state, int marked)
{
    struct unixgram *u = state;
    struct unixgram_header mark = { UNIXGRAM_MAGIC, 0, u->id, ++u->mark, 0 };
    uint64_t count;
    int cancel;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    (void)!read(u->event, &count, sizeof count);        /* wake() was for the call that begins now; the core knows why */
    u->marked = marked;
    u->budget = marked && unixgram_send(u, u->id, &mark, NULL, 0, NULL) != 0 ? u->depth : SIZE_MAX;
    pthread_setcancelstate(cancel, &cancel);
    return 0;
}

static int unixgram_garbage(struct unixgram *u)
{
    u->garbage++;
    return -1;
}

/* 1 a message, 0 the mark, -1 nothing of use. Whatever is there may come from anybody who can write to the directory. */
static int unixgram_take(struct unixgram *u, size_t got, ps_record *record)
{
    struct unixgram_header header;
    const char *topic;

    if (got < sizeof header || got > UNIXGRAM_DATAGRAM)
        return unixgram_garbage(u);
    memcpy(&header, u->buffer, sizeof header);
    if (header.topic_len == 0 && header.publisher == u->id)     /* if it is not the last one, its dispatch has ended before it */
        return u->marked && header.sequence == u->mark ? 0 : -1;
    if (header.magic != UNIXGRAM_MAGIC || header.publisher == 0 || header.topic_len > PS_TOPIC_MAX ||
        got - sizeof header < header.topic_len + 1)
        return unixgram_garbage(u);
    topic = (const char *)u->buffer + got - header.topic_len - 1;
    if (topic[header.topic_len] != '\0' || u->host->topic(u->host, topic, &record->topic) < 0)
        return unixgram_garbage(u);
    u->lost += header.lost;
    record->data = u->buffer + sizeof header;
    record->size = got - sizeof header - header.topic_len - 1;
    record->sequence = header.sequence;
    record->lost = header.lost;
    record->publisher = header.publisher;
    return u->host->match(u->host, &record->topic) ? 1 : -1;
}

static int unixgram_next(void *state, ps_record *record)
{
    struct unixgram *u = state;
    int kind = -1, cancel;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    while (kind < 0 && u->budget > 0) {
        /* MSG_TRUNC: the answer is the datagram's size, also if it is larger than the buffer. */
        ssize_t got = recv(u->socket, u->buffer, UNIXGRAM_DATAGRAM, MSG_DONTWAIT | MSG_TRUNC);

        if (got < 0) {
            kind = errno == EAGAIN ? 0 : unixgram_fail(u, PS_ESYS, "recv");
            break;
        }
        u->budget--;
        kind = unixgram_take(u, (size_t)got, record);
    }
    pthread_setcancelstate(cancel, &cancel);
    return kind == -1 ? 0 : kind;
}

/* The record stays where it is in any case, and what is left in the queue keeps fd() readable. */
static void unixgram_end(void *state, int flags)
{
    (void)state;
    (void)flags;
}

static int unixgram_wait(void *state, int timeout_ms)
{
    struct unixgram *u = state;
    struct epoll_event ready;
    int cancel, count;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    count = epoll_wait(u->epoll, &ready, 1, timeout_ms);
    pthread_setcancelstate(cancel, &cancel);
    if (count < 0)
        return errno == EINTR ? 1 : unixgram_fail(u, PS_ESYS, "epoll_wait");
    return count == 0 ? 0 : ready.data.fd == u->event ? 2 : 1;
}

static void unixgram_wake(void *state)
{
    int error = errno;
    uint64_t one = 1;

    (void)!write(((struct unixgram *)state)->event, &one, sizeof one);
    errno = error;
}

static int unixgram_fd(void *state)
{
    struct unixgram *u = state;

    if (!atomic_exchange(&u->polled, 1))
        unixgram_wake(u);               /* readable at once: the caller shall look what came before he asked */
    return u->epoll;
}

static void unixgram_stats(void *state, ps_bus_stats *stats)
{
    struct unixgram *u = state;

    pthread_mutex_lock(&u->lock);
    stats->published = u->sequence;
    pthread_mutex_unlock(&u->lock);
    stats->publisher = u->id;
    stats->lost = u->lost;
    stats->corrupt = u->garbage;
    stats->depth = u->depth;
    stats->message_max = UNIXGRAM_MESSAGE;
}

/* ------------------------------------------------------------------ open and close */

static void unixgram_release(struct unixgram *u)
{
    int descriptor[] = { u->socket, u->event, u->epoll, u->filters };

    for (int i = 0; i < 4; i++)
        if (descriptor[i] >= 0)
            close(descriptor[i]);
    u->socket = u->event = u->epoll = u->filters = -1;
    if (u->directory != NULL)
        closedir(u->directory);
    u->directory = NULL;
    free(u->own);
    free(u->text);
    free(u->buffer);
    u->own = u->text = NULL;
    u->buffer = NULL;
}

/* One attempt to become a member: 0, 1 the directory went away meanwhile, or an error. */
static int unixgram_enter(struct unixgram *u, int create)
{
    struct sockaddr_un hidden, name, filters;

    if (create && mkdir(u->path, 0700) < 0 && errno != EEXIST)
        return unixgram_fail(u, errno == ENOENT ? PS_ENOENT : errno == EACCES ? PS_EACCES : PS_ESYS, "mkdir");
    if ((u->directory = opendir(u->path)) == NULL && errno == ENOENT)
        return create ? 1 : u->host->fail(u->host, PS_ENOENT, "there is no bus %s", u->path);
    if (u->directory == NULL)
        return unixgram_fail(u, errno == EACCES ? PS_EACCES : PS_ESYS, "opendir");
    if (unixgram_sweep(u) == 0 && !create)
        return u->host->fail(u->host, PS_ENOENT, "there is nobody on the bus %s", u->path);
    if (getrandom(&u->id, sizeof u->id, 0) != sizeof u->id || u->id == 0)
        return 1;
    hidden = unixgram_path(u, ".", u->id, "");
    name = unixgram_path(u, "", u->id, "");
    filters = unixgram_path(u, "", u->id, ".filters");
    /* For a moment a name is there before its socket hears, and would be taken for a dead one's: so it gets its own when it
     * does. If the hidden one is swept away, we try again. */
    if (bind(u->socket, (struct sockaddr *)&hidden, sizeof hidden) < 0)
        return errno == ENOENT ? 1 : unixgram_fail(u, PS_ESYS, "bind");
    if (rename(hidden.sun_path, name.sun_path) < 0)
        return errno == ENOENT ? 1 : unixgram_fail(u, PS_ESYS, "rename");
    u->filters = open(filters.sun_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (u->filters >= 0)
        return 0;
    int err = unixgram_fail(u, PS_ESYS, "creating filters");
    unixgram_remove(u, u->id);
    return err;
}

/* What a handle needs besides its names. */
static int unixgram_equip(struct unixgram *u)
{
    int room = 4 * 1024 * 1024;         /* for all that is under way from here; the system grants what it allows */
    socklen_t len = sizeof room;
    struct epoll_event wake = { .events = EPOLLIN }, message = { .events = EPOLLIN };
    FILE *limit = fopen("/proc/sys/net/unix/max_dgram_qlen", "re");

    if (limit == NULL || fscanf(limit, "%zu", &u->depth) != 1)
        u->depth = 10;
    u->depth++;                         /* a queue is full when it holds more than that */
    if (limit != NULL)
        fclose(limit);
    if ((u->buffer = aligned_alloc(16, UNIXGRAM_DATAGRAM)) == NULL)
        return u->host->fail(u->host, PS_ENOMEM, "no memory for a datagram");
    wake.data.fd = u->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    message.data.fd = u->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    u->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(u->epoll, EPOLL_CTL_ADD, u->event, &wake) < 0 || epoll_ctl(u->epoll, EPOLL_CTL_ADD, u->socket, &message) < 0)
        return unixgram_fail(u, PS_ESYS, "descriptors");
    (void)setsockopt(u->socket, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (getsockopt(u->socket, SOL_SOCKET, SO_SNDBUF, &room, &len) < 0 || room < UNIXGRAM_DATAGRAM + 32)
        return u->host->fail(u->host, PS_ESYS, "net.core.wmem_max is too small for a datagram of %d bytes", UNIXGRAM_DATAGRAM);
    return 0;
}

static int unixgram_open(void *state, ps_host *host, const ps_url *url)
{
    struct unixgram *u = state;         /* zeroed */
    int err = 1;

    u->host = host;
    u->echo = url->echo;
    u->socket = u->event = u->epoll = u->filters = -1;
    if (url->address == NULL || url->address[0] != '/' || strlen(url->address) >= sizeof u->path)
        return host->fail(host, PS_EINVAL, "unixgram:// needs the absolute path of a directory");
    strcpy(u->path, url->address);
    for (int try = 0; err == 1 && try < UNIXGRAM_TRIES; try++) {
        if (try > 0)
            nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
        if ((err = unixgram_equip(u)) == 0)
            err = unixgram_enter(u, url->create);
        if (err != 0)
            unixgram_release(u);
    }
    if (err == 0)
        pthread_mutex_init(&u->lock, NULL);
    return err == 1 ? host->fail(host, PS_EBUSY, "%s is being taken down", u->path) : err;
}

static void unixgram_close(void *state, int forked)
{
    struct unixgram *u = state;

    if (!forked) {
        unixgram_remove(u, u->id);
        if (unixgram_sweep(u) == 0)
            (void)rmdir(u->path);       /* not if somebody has come, or there is anything else in it */
        pthread_mutex_destroy(&u->lock);
    }
    unixgram_release(u);
}

const ps_transport unixgram_transport = {
    .size = sizeof(ps_transport),
    .version = PS_TRANSPORT_VERSION,
    .can = PS_CAN_COUNT | PS_CAN_PROCESSES | PS_CAN_BARRIER,
    .scheme = "unixgram",
    .state_size = sizeof(struct unixgram),
    .open = unixgram_open,
    .close = unixgram_close,
    .publish = unixgram_publish,
    .wanted = unixgram_wanted,
    .subscribe = unixgram_subscribe,
    .unsubscribe = unixgram_unsubscribe,
    .begin = unixgram_begin,
    .next = unixgram_next,
    .end = unixgram_end,
    .wait = unixgram_wait,
    .fd = unixgram_fd,
    .wake = unixgram_wake,
    .stats = unixgram_stats,
};
