"""Files of others: MATLAB's and PASCAL VOC's."""
