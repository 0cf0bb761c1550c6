/* The first process of a container with several services and no shell.

   init SERVICE [-- SERVICE ...]
   SERVICE = NAME SIGNAL SECONDS inherit|empty [VARIABLE=VALUE ...] /PROGRAM [ARGUMENT ...]

   Services start in this order, at once. They stop in the reverse order when init gets SIGTERM, SIGINT or SIGQUIT,
   or when one of them ends by itself: each is sent its SIGNAL, has SECONDS to end, and is killed then; only when it
   has ended comes the next one's turn. A service sees init's environment (`inherit`) or none (`empty`), and its own
   VARIABLEs in either case, and no signal is ignored. SIGHUP, SIGUSR1 and SIGUSR2 are handed on to the first service.
   What a service writes is passed on line by line under its name; init's own lines stand under "init".

   Exit code: 0 when asked to stop, 137 when a service had to be killed for it; when a service ended by itself its
   exit code, 128 and the number of the signal that ended it, or 1 for an exit code of 0; 64 for wrong arguments, 71
   when the kernel refuses what is needed. */
#include "kernel.h"
#include "lines.h"

#define SERVICES 4
#define VARIABLES 4096
#define READS_AFTER_DEATH 8 /* more than a pipe holds: what still comes is another process's */

enum { USAGE = 64, REFUSED = 71, NOT_EXECUTABLE = 126, NOT_FOUND = 127, KILLED = 128 + SIGKILL };

struct stream {
  int from; /* -1 once its writers are gone */
  int to;
  struct lines lines;
};

struct service {
  const char *name;
  int stop_signal;
  int seconds;
  char **arguments;
  char **environment;
  int process; /* 0 when it does not run */
  int group;
  int asked, killed;
  struct stream streams[2];
};

static struct service services[SERVICES];
static int service_count;
static char *variables[VARIABLES];
static int variable_count;

static int signal_source = -1;
static int stopping, exit_code;
static int64_t deadline; /* of the service whose turn to stop it is */

static size_t length(const char *text) {
  size_t size = 0;
  while (text[size]) size++;
  return size;
}

static int same(const char *left, const char *right) {
  while (*left && *left == *right) left++, right++;
  return *left == *right;
}

/* ---- output */

struct output {
  int to;
  size_t used;
  char bytes[4096];
};

static void note_signals(void);

/* Whether something can be written. While nobody reads, signals are taken note of: a full pipe must not keep init
   from stopping, so what cannot be written then is dropped. */
static int writable(int to) {
  for (;;) {
    struct pollfd watched[] = {{to, POLLOUT, 0}, {signal_source, POLLIN, 0}};
    wait_for(watched, 2, stopping ? 0 : -1);
    if (watched[0].revents) return 1;
    if (stopping) return 0;
    if (watched[1].revents) note_signals();
  }
}

static void flush(struct output *output) {
  size_t done = 0;
  while (done < output->used && writable(output->to)) {
    long wrote = write_some(output->to, output->bytes + done, output->used - done);
    if (wrote < 0 && wrote != -EINTR && wrote != -EAGAIN) break;
    if (wrote > 0) done += wrote;
  }
  output->used = 0;
}

static void put(void *to, const char *text, size_t size) {
  struct output *output = to;
  for (size_t at = 0; at < size; at++) {
    if (output->used == sizeof output->bytes) flush(output);
    output->bytes[output->used++] = text[at];
  }
}

static void put_text(struct output *output, const char *text) { put(output, text, length(text)); }

static void put_number(struct output *output, int number) {
  char digits[12];
  size_t at = sizeof digits;
  do digits[--at] = '0' + number % 10;
  while (number /= 10);
  put(output, digits + at, sizeof digits - at);
}

/* A line of init's own: "init | NAME TEXT NUMBER REST". */
static void say(const char *name, const char *text, int number, const char *rest) {
  struct output output = {.to = 2, .used = 0};
  put_text(&output, "init | ");
  put_text(&output, name);
  put_text(&output, text);
  if (number >= 0) put_number(&output, number);
  put_text(&output, rest);
  put_text(&output, "\n");
  flush(&output);
}

static void refuse(const char *what, const char *why, int code) {
  say(what, why, -1, "");
  exit_now(code);
}

/* ---- arguments */

static int signal_number(const char *name) {
  if (same(name, "TERM")) return SIGTERM;
  if (same(name, "QUIT")) return SIGQUIT;
  if (same(name, "INT")) return SIGINT;
  refuse(name, " is not TERM, QUIT or INT", USAGE);
  return 0;
}

static int whole_number(const char *text) {
  int number = 0;
  for (const char *at = text; *at || at == text; at++) {
    if (*at < '0' || *at > '9' || number > 100000) refuse(text, " is not a number of seconds", USAGE);
    number = number * 10 + (*at - '0');
  }
  return number;
}

/* The length of "NAME=" at the beginning of a word; 0 when it is no assignment. */
static size_t assigned(const char *word) {
  for (size_t at = 0; word[at] && word[at] != '/'; at++)
    if (word[at] == '=' && at > 0) return at + 1;
  return 0;
}

static void add_variable(char *variable) {
  if (variable_count == VARIABLES) refuse("the environment", " has too many variables", USAGE);
  variables[variable_count++] = variable;
}

static int overridden(const char *variable, char **first, char **end) {
  for (; first < end; first++) {
    size_t size = assigned(*first), at = 0;
    while (at < size && (*first)[at] == variable[at]) at++;
    if (at == size) return 1;
  }
  return 0;
}

/* A service from the words up to `end`, which become its argument list in place. */
static void add_service(char **word, char **end, char **environment) {
  if (service_count == SERVICES) refuse(*word, " is one service too many", USAGE);
  if (end - word < 5) refuse("usage: init ", "NAME SIGNAL SECONDS inherit|empty [VARIABLE=VALUE] /PROGRAM [ARGUMENT]", USAGE);
  struct service *service = &services[service_count++];
  service->name = word[0];
  service->stop_signal = signal_number(word[1]);
  service->seconds = whole_number(word[2]);
  int inherits = same(word[3], "inherit");
  if (!inherits && !same(word[3], "empty")) refuse(word[3], " is neither inherit nor empty", USAGE);
  char **own = word + 4, **program = own;
  service->environment = variables + variable_count;
  while (program < end && assigned(*program)) add_variable(*program++);
  for (; inherits && *environment; environment++)
    if (!overridden(*environment, own, program)) add_variable(*environment);
  add_variable(NULL);
  if (program == end || **program != '/') refuse(service->name, " has no program, or one without its whole path", USAGE);
  service->arguments = program;
  *end = NULL;
}

static void read_arguments(char **words, char **environment) {
  while (*words) {
    char **end = words;
    while (*end && !same(*end, "--")) end++;
    char **next = *end ? end + 1 : end;
    add_service(words, end, environment);
    words = next;
  }
  if (service_count == 0) refuse("there is", " no service to start", USAGE);
}

/* ---- services */

static const char *reason(long error) {
  switch (error) {
    case -ENOENT: return "no such file or directory (or its loader)";
    case -ENOEXEC: return "exec format error";
    case -EACCES: return "permission denied";
    default: return "error ";
  }
}

/* In the new process: become the program. A failure is told in the service's own output. */
static void become(struct service *service, const int *output, int nothing, signals mask) {
  kernel(__NR_setsid, 0, 0, 0, 0, 0);
  if (nothing >= 0) kernel(__NR_dup3, nothing, 0, 0, 0, 0);
  for (int at = 0; at < 2; at++) kernel(__NR_dup3, output[at], at + 1, 0, 0, 0);
  default_signals();
  kernel(__NR_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, KERNEL_SIGNALS, 0);
  const char *program = service->arguments[0];
  long error = kernel(__NR_execve, (long)program, (long)service->arguments, (long)service->environment, 0, 0);
  struct output failure = {.to = 2, .used = 0};
  put_text(&failure, program);
  put_text(&failure, " cannot be executed: ");
  put_text(&failure, reason(error));
  if (same(reason(error), "error ")) put_number(&failure, -error);
  put_text(&failure, "\n");
  write_some(2, failure.bytes, failure.used);
  exit_now(error == -ENOENT ? NOT_FOUND : NOT_EXECUTABLE);
}

static void start(struct service *service, int nothing, signals mask) {
  int output[2];
  for (int at = 0; at < 2; at++) {
    int ends[2];
    if (kernel(__NR_pipe2, (long)ends, O_CLOEXEC, 0, 0, 0) < 0) refuse(service->name, " gets no pipe", REFUSED);
    struct stream *stream = &service->streams[at];
    stream->from = ends[0];
    stream->to = at + 1;
    stream->lines.name = service->name;
    stream->lines.name_size = length(service->name);
    output[at] = ends[1];
  }
  long process = fork_process();
  if (process == 0) become(service, output, nothing, mask);
  if (process < 0) refuse(service->name, " gets no process", REFUSED);
  service->process = service->group = (int)process;
  for (int at = 0; at < 2; at++) kernel(__NR_close, output[at], 0, 0, 0, 0);
}

static void pass_on(struct stream *stream) {
  struct output output = {.to = stream->to, .used = 0};
  struct lines *lines = &stream->lines;
  long got = read_some(stream->from, lines->text + lines->held, LONGEST_LINE - lines->held);
  if (got > 0) {
    take_bytes(lines, got, put, &output);
  } else if (got != -EINTR) {
    end_lines(lines, put, &output);
    kernel(__NR_close, stream->from, 0, 0, 0, 0);
    stream->from = -1;
  }
  flush(&output);
}

/* What a service wrote before it ended, its last line too when that is unfinished. */
static void pass_on_rest(struct service *service) {
  for (int at = 0; at < 2; at++) {
    struct stream *stream = &service->streams[at];
    for (int reads = 0; reads < READS_AFTER_DEATH && stream->from >= 0; reads++) {
      struct pollfd watched = {stream->from, POLLIN, 0};
      wait_for(&watched, 1, 0);
      if (!watched.revents) break;
      pass_on(stream);
    }
    struct output output = {.to = stream->to, .used = 0};
    end_lines(&stream->lines, put, &output);
    flush(&output);
  }
}

static void note_signals(void) {
  struct signalfd_siginfo signal;
  while (read_some(signal_source, &signal, sizeof signal) == sizeof signal) {
    switch (signal.ssi_signo) {
      case SIGTERM: case SIGINT: case SIGQUIT:
        stopping = 1;
        break;
      case SIGHUP: case SIGUSR1: case SIGUSR2:
        if (services[0].process) send_signal(services[0].process, signal.ssi_signo);
        break;
      default:
        break;
    }
  }
}

/* A service has ended. When nobody asked it to, that is the end of the others too, and what init exits with. */
static void note_end(struct service *service, int status) {
  int signalled = WIFSIGNALED(status);
  int code = signalled ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  service->process = 0;
  pass_on_rest(service);
  const char *rest = stopping ? "" : ", unasked";
  if (signalled) say(service->name, " was ended by signal ", WTERMSIG(status), rest);
  else say(service->name, " ended with exit code ", code, rest);
  if (stopping) return;
  stopping = 1;
  exit_code = code ? code : 1;
}

/* Every process that has ended, also those nobody waits for any more. */
static void reap(void) {
  int status, process;
  while ((process = reap_process(&status)))
    for (int at = 0; at < service_count; at++)
      if (services[at].process == process) note_end(&services[at], status);
}

static void kill_group(struct service *service) {
  send_signal(-service->group, SIGKILL);
  if (service->process) send_signal(service->process, SIGKILL);
}

/* The last service that still runs is asked to end, or killed when its time is over. 0 when none runs. */
static int stop_last(void) {
  int at = service_count - 1;
  while (at >= 0 && !services[at].process) at--;
  if (at < 0) return 0;
  struct service *service = &services[at];
  if (!service->asked) {
    service->asked = 1;
    deadline = now() + (int64_t)service->seconds * 1000;
    send_signal(service->process, service->stop_signal);
  } else if (!service->killed && now() >= deadline) {
    service->killed = 1;
    say(service->name, " did not end within ", service->seconds, " s and is killed");
    kill_group(service);
    if (!exit_code) exit_code = KILLED;
  }
  return service->killed ? 1 : 2;
}

/* Until something is written, a signal comes, or the time of the service being stopped is over. */
static void wait_and_pass_on(int timed) {
  struct pollfd watched[1 + 2 * SERVICES] = {{signal_source, POLLIN, 0}};
  struct stream *streams[2 * SERVICES];
  int count = 0;
  for (int at = 0; at < 2 * service_count; at++) {
    struct stream *stream = &services[at / 2].streams[at % 2];
    if (stream->from < 0) continue;
    watched[1 + count] = (struct pollfd){stream->from, POLLIN, 0};
    streams[count++] = stream;
  }
  int64_t left = timed ? deadline - now() : -1;
  wait_for(watched, 1 + count, timed && left < 0 ? 0 : left);
  for (int at = 0; at < count; at++)
    if (watched[1 + at].revents) pass_on(streams[at]);
}

__attribute__((used, noreturn)) void begin(long *stack) {
  char **words = (char **)(stack + 1);
  read_arguments(words + (stack[0] > 0), words + stack[0] + 1);
  signals all = ~(signals)0, before = 0;
  kernel(__NR_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&before, KERNEL_SIGNALS, 0);
  signals awaited = signal_bit(SIGTERM) | signal_bit(SIGINT) | signal_bit(SIGQUIT) | signal_bit(SIGHUP) |
                    signal_bit(SIGUSR1) | signal_bit(SIGUSR2) | signal_bit(SIGCHLD);
  signal_source = kernel(__NR_signalfd4, -1, (long)&awaited, KERNEL_SIGNALS, SFD_CLOEXEC | SFD_NONBLOCK, 0);
  if (signal_source < 0) refuse("init", " gets no signals", REFUSED);
  kernel(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  int nothing = kernel(__NR_openat, AT_FDCWD, (long)"/dev/null", O_RDWR | O_CLOEXEC, 0, 0);
  for (int at = 0; at < service_count; at++) start(&services[at], nothing, before);
  for (int timed = 0;;) {
    wait_and_pass_on(timed == 2);
    note_signals();
    reap();
    if (stopping && !(timed = stop_last())) break;
  }
  for (int at = 0; at < service_count; at++) kill_group(&services[at]);
  exit_now(exit_code);
  __builtin_unreachable();
}
