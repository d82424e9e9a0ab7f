extension PlanReport {
    /// The page's style sheet. Light and dark follow the reader's setting; print is light.
    static let style = """
        :root { color-scheme: light dark; --ink: #1d2733; --paper: #ffffff; --faint: #d5dbe2; --off: #e4e9ee; --cell: #17549c; --prefix: #8a95a1; --shadow: #0005; }
        @media screen and (prefers-color-scheme: dark) {
          :root { --ink: #e3e8ee; --paper: #14181d; --faint: #39434e; --off: #29313a; --cell: #86bbff; --prefix: #717d89; --shadow: #fff5; }
        }
        body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
        main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
        h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.3rem; margin-top: 2.2rem; } h3 { font-size: 1.05rem; }
        p { max-width: 46rem; }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
        th, td { padding: 0.25rem 0.5rem; border-bottom: 1px solid var(--faint); text-align: left; vertical-align: top; }
        th { font-weight: 600; } td .small, .line { white-space: nowrap; }
        .small { font-size: 13px; opacity: 0.85; display: block; }
        /* Shadows at the edges where there is more: the paper that hides them moves with the content. */
        .scroll { overflow-x: auto; background: linear-gradient(to right, var(--paper) 40%, transparent) left / 3rem 100% local no-repeat,
          linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% local no-repeat,
          linear-gradient(to right, var(--shadow), transparent) left / 1rem 100% scroll no-repeat,
          linear-gradient(to left, var(--shadow), transparent) right / 1rem 100% scroll no-repeat; }
        .hint { display: none; font-size: 14px; }
        @media screen and (max-width: 44rem) { .hint { display: block; } }
        figure { margin: 0.6rem 0; } figcaption { font-size: 14px; max-width: 46rem; }
        section { border-top: 1px solid var(--faint); margin-top: 1.8rem; }
        .row { display: flex; flex-wrap: wrap; gap: 0.9rem 1.4rem; align-items: flex-start; }
        .answers { flex: 1 1 20rem; } .answers th { white-space: nowrap; } .answers td + td { overflow-wrap: anywhere; min-width: 5rem; }
        .question { white-space: pre-line; overflow-wrap: anywhere; }
        summary { cursor: pointer; margin: 0.4rem 0; }
        svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg .strong { font-weight: 600; }
        svg .cell { fill: var(--cell); } svg .prefix { fill: var(--prefix); } svg .off { fill: var(--off); } svg .onfull { fill: var(--paper); }
        svg .shade { fill: #000; fill-opacity: 0.5; } svg .light { fill: #ffd84a; }
        svg .grid { stroke: var(--faint); } svg .zero { stroke: var(--ink); } svg .interval { stroke: var(--cell); stroke-width: 2.5; }
        svg .point { fill: var(--cell); stroke: var(--paper); }
        """
}
