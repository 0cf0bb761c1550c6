/* System calls and the program's entry, without a C library. Of its headers only constants and types are used. */
#ifndef KERNEL_H
#define KERNEL_H

#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

#if defined(__x86_64__)
static long kernel(long number, long a, long b, long c, long d, long e) {
  long result;
  register long fourth __asm__("r10") = d;
  register long fifth __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
                   : "rcx", "r11", "memory");
  return result;
}
__asm__(".text\n.global _start\n_start:\n  xor %ebp, %ebp\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call begin\n");
#elif defined(__aarch64__)
static long kernel(long number, long a, long b, long c, long d, long e) {
  register long eighth __asm__("x8") = number;
  register long first __asm__("x0") = a;
  register long second __asm__("x1") = b;
  register long third __asm__("x2") = c;
  register long fourth __asm__("x3") = d;
  register long fifth __asm__("x4") = e;
  __asm__ volatile("svc 0" : "+r"(first) : "r"(eighth), "r"(second), "r"(third), "r"(fourth), "r"(fifth) : "memory");
  return first;
}
__asm__(".text\n.global _start\n_start:\n  mov x29, xzr\n  mov x30, xzr\n  mov x0, sp\n  bl begin\n");
#else
#error "orchestrator-init knows x86_64 and aarch64 only"
#endif

#define KERNEL_SIGNALS 8 /* bytes of a signal set as the kernel takes it */
typedef uint64_t signals;

static signals signal_bit(int number) { return (signals)1 << (number - 1); }

static void exit_now(int code) {
  for (;;) kernel(__NR_exit_group, code, 0, 0, 0, 0);
}

static long read_some(int from, void *into, size_t size) { return kernel(__NR_read, from, (long)into, size, 0, 0); }

static long write_some(int to, const void *text, size_t size) { return kernel(__NR_write, to, (long)text, size, 0, 0); }

static void send_signal(int process, int number) { kernel(__NR_kill, process, number, 0, 0, 0); }

/* Undo what whoever started us ignored (nohup does with SIGHUP): that survives execve(2). All zero is SIG_DFL. */
static void default_signals(void) {
  const uint64_t action[4] = {0}; /* struct sigaction as the kernel takes it, restorer included */
  for (int number = 1; number <= 8 * KERNEL_SIGNALS; number++)
    kernel(__NR_rt_sigaction, number, (long)action, 0, KERNEL_SIGNALS, 0);
}

static long fork_process(void) { return kernel(__NR_clone, SIGCHLD, 0, 0, 0, 0); }

/* A process that has ended, its wait status in `status`; 0 when there is none. */
static int reap_process(int *status) {
  long found = kernel(__NR_wait4, -1, (long)status, WNOHANG, 0, 0);
  return found > 0 ? (int)found : 0;
}

/* Milliseconds of a clock nobody sets. */
static int64_t now(void) {
  struct timespec time = {0, 0};
  kernel(__NR_clock_gettime, CLOCK_MONOTONIC, (long)&time, 0, 0, 0);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Wait until one of `watched` is ready, for so many milliseconds at most; for ever when negative. */
static void wait_for(struct pollfd *watched, int count, int64_t milliseconds) {
  struct timespec time = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
  long done = kernel(__NR_ppoll, (long)watched, count, milliseconds < 0 ? 0 : (long)&time, 0, 0);
  for (int at = 0; done < 0 && at < count; at++) watched[at].revents = 0;
}

/* The compiler may call these for loops and initialisers, also in a program of its own. */
__attribute__((used, optimize("no-tree-loop-distribute-patterns"))) void *memset(void *to, int byte, size_t size) {
  for (size_t at = 0; at < size; at++) ((char *)to)[at] = (char)byte;
  return to;
}

__attribute__((used, optimize("no-tree-loop-distribute-patterns"))) void *memcpy(void *to, const void *from,
                                                                                 size_t size) {
  for (size_t at = 0; at < size; at++) ((char *)to)[at] = ((const char *)from)[at];
  return to;
}

#endif
