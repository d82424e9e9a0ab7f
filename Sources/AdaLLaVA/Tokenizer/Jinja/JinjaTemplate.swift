import Foundation

/// A template in the part of Jinja that chat templates use, with the settings of transformers: `trim_blocks`, `lstrip_blocks`, a sandbox,
/// `break` and `continue`, `{% generation %}`, `raise_exception`, `strftime_now`, and a `tojson` that keeps letters as they are.
///
///     let template = try JinjaTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
///
/// Parsing and rendering are bounded by ``JinjaLimits``: both take a template as untrusted input.
struct JinjaTemplate: Sendable {
    let source: String
    let statements: [JinjaStatement]
    let limits: JinjaLimits

    /// - Throws: ``JinjaError`` with the line of the first thing that is wrong.
    init(_ source: String, limits: JinjaLimits = JinjaLimits()) throws {
        (self.source, self.limits) = (source, limits)
        statements = try JinjaParser.parse(source, limits: limits)
    }

    /// The template's text.
    /// - Parameters:
    ///   - variables: the template's variables by name.
    ///   - inputLength: scalars of the conversation among them, which limits on memory grow with.
    ///   - now: the time for `strftime_now`.
    /// - Throws: ``JinjaError``
    func render(_ variables: [String: JinjaValue], inputLength: Int = 0, now: Date = Date()) throws -> JinjaText {
        let meter = JinjaMeter(limits, input: inputLength)
        return try JinjaInterpreter(meter: meter, now: now).render(statements, variables: variables)
    }
}

extension JinjaTemplate: Equatable {
    static func == (left: JinjaTemplate, right: JinjaTemplate) -> Bool { left.source == right.source }
}
