import Foundation

/// The tasks that a step leaves out, so that a more urgent one is in time.
struct HeldTasks {
    /// Answers that do not grow in this step.
    var answers: Set<ObjectIdentifier> = []
    /// Whether no image is encoded and no prompt read in this step.
    var reading = false

    func contains(_ task: GenerationTask) -> Bool { task.isDecoding ? answers.contains(ObjectIdentifier(task)) : reading }
}

/// Who waits for whom, where requests of several deadlines share the machine.
extension Engine {
    /// Nanoseconds of an image that a step takes while answers are held: after them newcomers are looked at.
    static let heldImageNanoseconds = 20e6

    /// The earliest deadline is served first (Liu and Layland, 1973), but only where the order decides who is in time: an answer that can wait is held while the
    /// image and the prompt of a more urgent request are read, and what is less urgent than an answer with no time to spare is not read beside it. Otherwise
    /// steps stay shared, because one read of the weights then serves all rows.
    ///
    /// Requests without a deadline are due when nobody should wait any longer (``LoadBalance/patience``), and those with a limit for each token are never held.
    func heldTasks() -> HeldTasks {
        var held = HeldTasks()
        guard let balance, let planner, planner.isFitted, tasks.count > 1 else { return held }
        let now = ContinuousClock.now
        // The one whose prompt is read next.
        guard let reading = tasks.filter({ !$0.isDone && !$0.isDecoding }).min(by: { $0.order < $1.order }) else { return held }
        let readingIsUrgent = reading.deadline.map { $0 > now } ?? false && !reading.isLate
        let times = reading.timing?.times ?? planner.times(units: reading.units ?? planner.mostUnits)
        let readingTime = (planner.predict(remaining(reading), times) * loads(reading, planner)).whole
        for answer in tasks where !answer.isDone && answer.isDecoding {
            guard let timing = answer.timing, timing.limits?.perToken == nil else { continue }
            let due = answer.deadline ?? answer.called + balance.patience, left = (due - now).nanoseconds
            let needed = planner.predict(remaining(answer), timing.times).decode * loads(answer, planner).decode * timing.wholeMargin
            if readingIsUrgent, reading.order < answer.order {
                // An answer that is late already loses nothing that counts until others would wait too long for it.
                let wait = left > 0 ? left : (answer.called + balance.patience - now).nanoseconds
                if wait > needed + readingTime { held.answers.insert(ObjectIdentifier(answer)) }
            } else if answer.deadline != nil, answer.order < reading.order, left > 0, needed <= left {
                let crowded = reading.isEncoding ? StepPacing.imageFactor : StepPacing.promptFactor
                if needed * crowded > left, mayWait(reading, for: needed, now) { held.reading = true }
            }
        }
        return held
    }

    /// Whether a request that is being read can wait so many nanoseconds.
    private func mayWait(_ reading: GenerationTask, for nanoseconds: Double, _ now: ContinuousClock.Instant) -> Bool {
        guard let balance else { return false }
        return (reading.called + balance.patience - now).nanoseconds > nanoseconds
    }

    /// Counts the time of a step that it took for others.
    /// - Parameters:
    ///   - encoded: the task whose image the step took further.
    ///   - computing: nanoseconds of the step's layers.
    func noteOthers(encoded: GenerationTask?, computing: Double) {
        defer { stepStart = nil }
        guard planner != nil, tasks.count > 1, let stepStart else { return }
        let elapsed = (ContinuousClock.now - stepStart).nanoseconds
        for task in tasks where !task.isDone && task !== encoded {
            guard var timing = task.timing else { continue }
            let others = max(elapsed - computing * timing.ownShare, 0)
            timing.others += others
            if task.result.tokens.isEmpty { timing.othersToFirstToken += others }
            timing.ownShare = 0
            task.timing = timing
        }
    }
}
