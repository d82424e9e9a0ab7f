import Foundation

/// Lengths of earlier answers, by kind of question; they predict the next one's.
package struct AnswerLengths: Sendable, Equatable, Codable {
    /// Lengths that are kept of each kind.
    static let count = 64
    /// Kinds that are kept.
    static let kinds = 64
    /// Answers of a kind that was hardly ever asked: a typical length is expected, and a plan shrinks when an answer goes beyond it.
    private static let usual = [2, 3, 4, 6, 8, 12, 16, 24, 48]
    /// Answers from which a kind is known.
    private static let enough = 8
    /// Fraction of answers that are as long as expected, or shorter: of a kind that is known, and of others.
    static let level = 0.9, firstLevel = 0.7

    private var byKind: [String: [Int]] = [:]

    package init() {}

    /// The kind of a question: its first word, and whether it is about images. `What colour…` and `Describe…` are answered at different lengths.
    package static func kind(of question: String, images: Int) -> String {
        let word = question.lowercased().split(whereSeparator: { !$0.isLetter }).first.map { String($0.prefix(16)) } ?? ""
        return (images > 0 ? "image " : "text ") + word
    }

    package mutating func add(_ length: Int, kind: String) {
        guard length > 0 else { return }
        if byKind[kind] == nil, byKind.count >= AnswerLengths.kinds, let least = byKind.min(by: { ($0.value.count, $0.key) < ($1.value.count, $1.key) }) {
            byKind[least.key] = nil
        }
        byKind[kind, default: []].append(length)
        if byKind[kind, default: []].count > AnswerLengths.count { byKind[kind]?.removeFirst() }
    }

    /// Tokens that an answer is expected to have in all.
    /// - Parameters:
    ///   - soFar: those that it has; longer answers are looked for among those that reached as far.
    ///   - limit: the most that it may have.
    package func expected(kind: String, soFar: Int = 0, atMost limit: Int) -> Int {
        let own = byKind[kind] ?? []
        let isKnown = own.count >= AnswerLengths.enough
        let known = (isKnown ? own : own + AnswerLengths.usual).filter { $0 > soFar }.sorted()
        guard !known.isEmpty else { return min(limit, soFar + max(soFar / 4, 1)) }
        let place = min(Int(((isKnown ? AnswerLengths.level : AnswerLengths.firstLevel) * Double(known.count)).rounded(.up)), known.count)
        return max(min(known[place - 1], limit), min(soFar + 1, limit))
    }

    /// Kept files are input like any other.
    var isUsable: Bool {
        byKind.count <= AnswerLengths.kinds && byKind.allSatisfy { $0.key.count <= 32 && $0.value.count <= AnswerLengths.count && $0.value.allSatisfy { (1 ... 1 << 20).contains($0) } }
    }
}
