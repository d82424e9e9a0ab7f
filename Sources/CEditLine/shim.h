#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <editline/readline.h>

// One line from the terminal with editing and history; the prompt goes to standard error, because standard output is for answers.
// NULL at the end of input. The caller frees the line.
static inline char *adallava_read_line(const char *prompt) {
    rl_outstream = stderr;
    char *line = readline(prompt);
    if (line != NULL && line[0] != '\0') add_history(line);
    return line;
}
