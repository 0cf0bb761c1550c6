/* Turns what a program writes into lines under its name: "backend | text". A line too long to be held is passed on in
   pieces, of which all but the first begin with "backend + ", so that nothing of it is lost or made up. */
#ifndef LINES_H
#define LINES_H

#include <stddef.h>

#ifndef LONGEST_LINE
#define LONGEST_LINE 16384
#endif

typedef void put_function(void *to, const char *text, size_t size);

struct lines {
  const char *name;
  size_t name_size;
  size_t held;    /* bytes of an unfinished line in `text` */
  int broken;     /* whether a piece of that line was passed on already */
  char text[LONGEST_LINE];
};

static void put_line(struct lines *lines, const char *text, size_t size, put_function *put, void *to) {
  put(to, lines->name, lines->name_size);
  put(to, lines->broken ? " + " : " | ", 3);
  put(to, text, size);
  put(to, "\n", 1);
}

/* `count` bytes were added to `text` behind those held: pass on every line that is whole now, keep the rest. */
static void take_bytes(struct lines *lines, size_t count, put_function *put, void *to) {
  size_t start = 0, end = lines->held + count;
  for (size_t at = lines->held; at < end; at++) {
    if (lines->text[at] != '\n') continue;
    if (!lines->broken || at > start) put_line(lines, lines->text + start, at - start, put, to);
    lines->broken = 0;
    start = at + 1;
  }
  lines->held = end - start;
  if (lines->held == LONGEST_LINE) {
    put_line(lines, lines->text, lines->held, put, to);
    lines->broken = 1;
    lines->held = 0;
  }
  for (size_t at = 0; start > 0 && at < lines->held; at++) lines->text[at] = lines->text[start + at];
}

/* Nothing more comes for now: pass on the unfinished line. */
static void end_lines(struct lines *lines, put_function *put, void *to) {
  if (lines->held > 0) put_line(lines, lines->text, lines->held, put, to);
  lines->held = 0;
  lines->broken = 0;
}

#endif
