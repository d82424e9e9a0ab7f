#pragma once
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <editline/readline.h>

// One line from the terminal with editing and history; the prompt goes to standard error, because standard output is for answers.
// NULL at the end of input. The caller frees the line.
static inline char *adallava_read_line(const char *prompt) {
    // In the C locale, in which a program starts, libedit drops every character beyond ASCII.
    static int is_ready = 0;
    if (!is_ready) {
        is_ready = 1;
        if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    }
    rl_outstream = stderr;
    char *line = readline(prompt);
    if (line != NULL && line[0] != '\0') add_history(line);
    return line;
}
