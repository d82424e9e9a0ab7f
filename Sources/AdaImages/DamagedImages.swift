import Synchronization

/// The images of a run that were read although they are damaged, each counted once. May be used from several threads.
package final class DamagedImages: Sendable {
    private let found = Mutex<Set<ImageDamage>>([])
    private let onFirst: @Sendable (ImageDamage) -> Void

    /// - Parameter onFirst: called once for each damaged image.
    package init(onFirst: @escaping @Sendable (ImageDamage) -> Void = { _ in }) { self.onFirst = onFirst }

    /// - Parameter damage: from ``ReadImage/damage``; `nil` is not counted.
    package func note(_ damage: ImageDamage?) {
        guard let damage else { return }
        let isNew = found.withLock { $0.insert(damage).inserted }
        if isNew { onFirst(damage) }
    }

    /// A line of a report; `nil` for none.
    package static func note(_ count: Int) -> String? {
        count > 0 ? "\(count) \(count == 1 ? "image" : "images") damaged, read as Pillow reads \(count == 1 ? "it" : "them")" : nil
    }

    package var count: Int { found.withLock(\.count) }
}
