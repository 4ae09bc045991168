/*
 * shaper.c
 *	  A link between two servers: carries TCP connections, with a rate, a delay
 *	  and a switch, and counts what passes.
 *
 * Usage: shaper TARGET_PORT
 *
 * The client's side is called B, the target's side A. Prints the port of
 * loopback that it listens on, then obeys commands on standard input, each
 * answered by one line, until that ends:
 *
 *	 rate BYTES MS	bytes per second in each direction (0: no limit), and the
 *					time that every byte is under way; answer "done"
 *	 narrow, wide	sockets of connections to come are small, as on a path of
 *					1400-byte segments, or as large as loopback's; "done"
 *	 cut, restore	resets all connections and refuses new ones; and ends that
 *	 count			answer "A_TO_B B_TO_A", payload that entered the link
 *
 * Connections share a direction in turns. Data leaves the link in chunks, one
 * after the other at the given rate, and arrives the delay later. Only HELD
 * bytes of a connection wait in front of a link with a rate; small socket
 * buffers let the sender notice, as on a real path.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNS 128
#define HELD 16384
#define SEGMENT 1400
#define SECOND INT64_C(1000000000)

/* data on its way through the link */
typedef struct Chunk
{
	struct Chunk *next;
	int64_t		due;			/* when it arrives */
	int			size;
	int			done;			/* bytes handed over already */
	char		data[];
} Chunk;

/* one direction of a connection; 0 is from A to B */
typedef struct Half
{
	int			in;
	int			out;
	int			held;
	char		hold[HELD];		/* waits in front of the link */
	Chunk	   *head;
	Chunk	   *tail;
	int			flying;			/* bytes in the chunks */
	bool		ended;			/* "in" has nothing more to say */
	bool		shut;			/* "out" has been told so */
	bool		stuck;			/* "out" takes nothing at present */
} Half;

typedef struct Conn
{
	bool		used;
	int			fd[2];			/* A's side, B's side */
	Half		half[2];
} Conn;

static Conn conns[MAX_CONNS];
static int	listener = -1;
static struct sockaddr_in target;
static struct sockaddr_in here;
static double rate;
static int64_t delay;
static bool narrow;
static bool is_cut;
static int	turn[2];
static int64_t busy_until[2];
static uint64_t passed[2];

static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static void
prepare_socket(int fd)
{
	int			one = 1;
	int			buffer = HELD / 2;
	int			segment = SEGMENT;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (!narrow)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
}

/* Listens; on the same port as before, if there was one. */
static void
start_listening(void)
{
	int			one = 1;
	socklen_t	size = sizeof here;

	if ((listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
		die("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	prepare_socket(listener);
	if (bind(listener, (struct sockaddr *) &here, sizeof here) != 0 ||
		listen(listener, 64) != 0 ||
		getsockname(listener, (struct sockaddr *) &here, &size) != 0)
		die("listen");
}

static void
stop_listening(void)
{
	close(listener);
	listener = -1;
}

static void
drop(Conn *conn, bool reset)
{
	struct linger none = {.l_onoff = 1};

	for (int i = 0; i < 2; i++)
	{
		Chunk	   *next;

		if (reset)
			setsockopt(conn->fd[i], SOL_SOCKET, SO_LINGER, &none, sizeof none);
		close(conn->fd[i]);
		for (Chunk *chunk = conn->half[i].head; chunk; chunk = next)
		{
			next = chunk->next;
			free(chunk);
		}
	}
	conn->used = false;
}

static void
accept_one(void)
{
	int			client = accept(listener, NULL, NULL);
	int			server;
	Conn	   *conn = conns;

	if (client < 0)
		return;
	while (conn < conns + MAX_CONNS && conn->used)
		conn++;
	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (conn == conns + MAX_CONNS || server < 0)
	{
		close(client);
		if (server >= 0)
			close(server);
		return;
	}
	prepare_socket(client);
	prepare_socket(server);
	memset(conn, 0, sizeof *conn);
	conn->used = true;
	conn->fd[0] = conn->half[0].in = conn->half[1].out = server;
	conn->fd[1] = conn->half[1].in = conn->half[0].out = client;
	if (connect(server, (struct sockaddr *) &target, sizeof target) != 0 &&
		errno != EINPROGRESS)
		drop(conn, true);
}

static bool
must_wait(void)
{
	return errno == EAGAIN || errno == EINTR || errno == ENOTCONN;
}

/* Reads what waits in front of the link. */
static void
fill(Conn *conn, Half *half)
{
	ssize_t		size;

	if (half->ended || half->held == HELD)
		return;
	size = recv(half->in, half->hold + half->held, HELD - half->held, 0);
	if (size > 0)
		half->held += size;
	else if (size == 0)
		half->ended = true;
	else if (!must_wait())
		drop(conn, true);
}

/* Lets one chunk of the half enter direction d of the link. */
static void
enter(Half *half, int d, int64_t t)
{
	int			size = rate > 0 && half->held > SEGMENT ? SEGMENT : half->held;
	Chunk	   *chunk = malloc(sizeof *chunk + size);

	if (chunk == NULL)
		die("malloc");
	memcpy(chunk->data, half->hold, size);
	memmove(half->hold, half->hold + size, half->held - size);
	half->held -= size;
	if (rate > 0)
	{
		/* late by less than the clock's grain counts as in time */
		if (busy_until[d] < t - SECOND / 200)
			busy_until[d] = t;
		busy_until[d] += (int64_t) (size / rate * SECOND);
		t = busy_until[d];
	}
	chunk->due = t + delay;
	chunk->size = size;
	chunk->done = 0;
	chunk->next = NULL;
	if (half->tail)
		half->tail->next = chunk;
	else
		half->head = chunk;
	half->tail = chunk;
	half->flying += size;
	passed[d] += size;
}

/* Lets data of all connections enter direction d, as much as it takes now. */
static void
enter_all(int d, int64_t t)
{
	int			limit = rate > 0 ? (int) (rate * delay / SECOND) + 65536
		: 8 << 20;
	int			idle = 0;

	while (idle < MAX_CONNS && (rate <= 0 || t >= busy_until[d]))
	{
		Conn	   *conn = &conns[turn[d] = (turn[d] + 1) % MAX_CONNS];
		Half	   *half = &conn->half[d];

		if (!conn->used || half->held == 0 || half->flying > limit)
		{
			idle++;
			continue;
		}
		idle = 0;
		enter(half, d, t);
	}
}

/* Hands over what has arrived. */
static void
deliver(Conn *conn, Half *half, int64_t t)
{
	half->stuck = false;
	while (half->head && half->head->due <= t)
	{
		Chunk	   *chunk = half->head;
		ssize_t		size = send(half->out, chunk->data + chunk->done,
								chunk->size - chunk->done, MSG_NOSIGNAL);

		if (size < 0 && !must_wait())
		{
			drop(conn, true);
			return;
		}
		if (size > 0)
		{
			chunk->done += size;
			half->flying -= size;
		}
		if (chunk->done < chunk->size)
		{
			half->stuck = true;
			return;
		}
		half->head = chunk->next;
		if (half->head == NULL)
			half->tail = NULL;
		free(chunk);
	}
	if (half->ended && half->held == 0 && half->head == NULL && !half->shut)
	{
		shutdown(half->out, SHUT_WR);
		half->shut = true;
	}
}

/* Moves everything as far as it goes now. */
static void
move_all(void)
{
	int64_t		t = now();

	if (listener >= 0)
		accept_one();
	for (Conn *conn = conns; conn < conns + MAX_CONNS; conn++)
		for (int i = 0; i < 2 && conn->used; i++)
			fill(conn, &conn->half[i]);
	enter_all(0, t);
	enter_all(1, t);
	for (Conn *conn = conns; conn < conns + MAX_CONNS; conn++)
	{
		for (int i = 0; i < 2 && conn->used; i++)
			deliver(conn, &conn->half[i], t);
		if (conn->used && conn->half[0].shut && conn->half[1].shut)
			drop(conn, false);
	}
}

/* Waits until something can move, or a command comes; true for the latter. */
static bool
wait_for_work(void)
{
	struct pollfd fds[2 + 2 * MAX_CONNS];
	int			n = 2;
	int64_t		t = now();
	int64_t		wake = t + SECOND;
	struct timespec span;

	fds[0] = (struct pollfd) {.fd = STDIN_FILENO, .events = POLLIN};
	fds[1] = (struct pollfd) {.fd = listener, .events = POLLIN};
	for (Conn *conn = conns; conn < conns + MAX_CONNS; conn++)
		for (int i = 0; i < 2 && conn->used; i++)
		{
			Half	   *in = &conn->half[i];	/* read from fd[i] */
			Half	   *out = &conn->half[1 - i];	/* written to fd[i] */
			short		events = 0;

			if (!in->ended && in->held < HELD)
				events |= POLLIN;
			if (out->stuck)
				events |= POLLOUT;
			if (in->head && !in->stuck && in->head->due < wake)
				wake = in->head->due;
			if (in->held > 0 && rate > 0 && busy_until[i] < wake &&
				busy_until[i] > t)
				wake = busy_until[i];
			if (events)
				fds[n++] = (struct pollfd) {.fd = conn->fd[i],.events = events};
		}
	if (wake < t)
		wake = t;
	span.tv_sec = (wake - t) / SECOND;
	span.tv_nsec = (wake - t) % SECOND;
	return ppoll(fds, n, &span, NULL) > 0 && fds[0].revents != 0;
}

static void
obey(char *line)
{
	double		bytes;
	double		ms;

	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "rate %lf %lf", &bytes, &ms) == 2)
	{
		rate = bytes;
		delay = (int64_t) (ms * 1e6);
		busy_until[0] = busy_until[1] = 0;
	}
	else if (strcmp(line, "narrow") == 0 || strcmp(line, "wide") == 0)
	{
		narrow = line[0] == 'n';
		if (listener >= 0)
			stop_listening();
		if (!is_cut)
			start_listening();
	}
	else if (strcmp(line, "cut") == 0 && !is_cut)
	{
		is_cut = true;
		stop_listening();
		for (Conn *conn = conns; conn < conns + MAX_CONNS; conn++)
			if (conn->used)
				drop(conn, true);
	}
	else if (strcmp(line, "restore") == 0 && is_cut)
	{
		is_cut = false;
		start_listening();
	}
	else if (strcmp(line, "count") == 0)
	{
		printf("%llu %llu\n", (unsigned long long) passed[0],
			   (unsigned long long) passed[1]);
		return;
	}
	puts("done");
}

int
main(int argc, char **argv)
{
	char		line[100];

	if (argc != 2)
	{
		fprintf(stderr, "usage: shaper TARGET_PORT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdin, NULL, _IONBF, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	here.sin_family = target.sin_family = AF_INET;
	here.sin_addr.s_addr = target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	target.sin_port = htons(atoi(argv[1]));
	start_listening();
	printf("%d\n", ntohs(here.sin_port));
	for (;;)
	{
		if (wait_for_work())
		{
			if (fgets(line, sizeof line, stdin) == NULL)
				return 0;
			obey(line);
		}
		move_all();
	}
}
