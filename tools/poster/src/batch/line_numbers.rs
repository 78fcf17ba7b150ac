//! The lines of a file that have jobs.

use std::collections::HashSet;

use shared::batch_file::MAX_LINES;

/// The line of each job of a batch, by the job's index. In memory are only the places where other lines come between.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineNumbers {
    /// The index and the line of the first job of each run of successive lines.
    runs: Vec<(u32, u32)>,
    jobs: u32,
}

impl LineNumbers {
    /// Adds the next job. Its line comes after that of the job before it.
    pub(crate) fn push(&mut self, line: u64) {
        debug_assert!(line <= MAX_LINES + 1);
        let line = line as u32;
        if self.runs.last().is_none_or(|(index, first)| first + (self.jobs - index) != line) {
            self.runs.push((self.jobs, line));
        }
        self.jobs += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs as usize
    }

    /// The line of the job with this index.
    pub(crate) fn line_of(&self, index: usize) -> u64 {
        let run = self.runs.partition_point(|(first, _)| *first as usize <= index);
        let (first, line) = self.runs[run - 1];
        u64::from(line) + index as u64 - u64::from(first)
    }

    /// The index of the job on this line.
    pub(crate) fn index_of(&self, line: u64) -> Option<usize> {
        let run = self.runs.partition_point(|(_, first)| u64::from(*first) <= line);
        let (first, start) = *self.runs.get(run.checked_sub(1)?)?;
        let index = u64::from(first) + line - u64::from(start);
        let end = self.runs.get(run).map_or(self.jobs, |(next, _)| *next);
        (index < u64::from(end)).then_some(index as usize)
    }

    /// The same without some lines.
    pub(crate) fn without(&self, lines: &HashSet<u64>) -> Self {
        let mut others = Self::default();
        (0..self.len()).map(|index| self.line_of(index)).filter(|line| !lines.contains(line)).for_each(|line| {
            others.push(line);
        });
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_indexes_belong_together() {
        let mut numbers = LineNumbers::default();
        let lines = [2, 3, 5, 8, 9, 10];
        lines.into_iter().for_each(|line| numbers.push(line));
        assert_eq!((numbers.runs.len(), numbers.len()), (3, 6));
        for (index, line) in lines.into_iter().enumerate() {
            assert_eq!((numbers.line_of(index), numbers.index_of(line)), (line, Some(index)));
        }
        assert_eq!([0, 1, 4, 6, 7, 11].map(|line| numbers.index_of(line)), [None; 6]);
        let others = numbers.without(&[3, 8].into());
        assert_eq!((0..others.len()).map(|index| others.line_of(index)).collect::<Vec<_>>(), [2, 5, 9, 10]);
    }
}
