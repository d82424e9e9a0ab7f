// Messages typed on a terminal, with editing, completion, whole pastes and a history: libedit behind functions without variable arguments.
//
// Texts are the terminal's bytes, zero at the end. What is no UTF-8 comes back as it was typed, because it may be part of a file's name.
// The functions of one editor are called by one thread at a time, but for cle_abandon.
#pragma once

typedef struct cle_editor cle_editor;

typedef enum {
    CLE_LINE = 0,
    CLE_INTERRUPTED = 1,  // Ctrl-C; the line is what was typed so far
    CLE_END = 2,          // Ctrl-D on an empty line, or the terminal is gone
} cle_result;

// What Tab does: returns the text to insert at the cursor, and in *choices one text a line to be listed, or leaves that alone. Both are freed.
// before: the line up to the cursor.
typedef char *(*cle_complete)(const char *before, char **choices);

// One editor of the process. input, output: descriptors of the terminal; input stays open. history_limit: messages that the arrow keys find.
// NULL if libedit cannot use the terminal.
cle_editor *cle_create(int input, int output, int history_limit, cle_complete complete);

// Reads a message. *line: to be freed; without its last line break, and with line breaks inside only where a paste had them; NULL after CLE_END.
// Ctrl-Z stops the process group and shows the line again when it continues.
cle_result cle_read(cle_editor *editor, const char *prompt, char **line);

// Adds a message to those that the arrow keys find.
void cle_remember(cle_editor *editor, const char *line);

// Ends what cle_read asked of the terminal beside its settings; for another thread that ends the process meanwhile.
void cle_abandon(void);
